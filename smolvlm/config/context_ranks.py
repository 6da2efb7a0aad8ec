"""`train.context_ranks` and `train.context_exchange`: one sequence over several ranks."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from smolvlm.config.problems import Problem
from smolvlm.errors import ConfigError

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig
    from smolvlm.config.train import TrainConfig

ContextExchange = Literal["gather", "ring"]


def context_problems(config: "RunConfig") -> Iterator[Problem]:
    """Yield what cannot work where several ranks hold a pack together."""
    train = config.train
    if train.context_ranks == 1:
        if train.context_exchange != "gather":
            yield Problem(
                key="train.context_exchange",
                value=repr(train.context_exchange),
                what="has no effect while each rank has whole packs",
                fix="set train.context_ranks, or take it out",
            )
        return
    refused = (
        (
            train.method.type == "dpo",
            "a pair's two answers may lie on two ranks, and their losses are not summed over them",
            "train.method: dpo, or set train.context_ranks: 1",
        ),
        (
            train.engine == "deepspeed",
            "DeepSpeed's gradients are not tried with it",
            "the engine deepspeed: ddp and fsdp2 work",
        ),
        (
            config.data.pad_packs,
            "a rank's part of a pack is not padded",
            "data.pad_packs",
        ),
        (
            bool(train.arguments.get("torch_compile")),
            "what the ranks exchange is not compiled",
            "train.torch_compile",
        ),
    )
    for is_asked, what, setting in refused:
        if is_asked:
            yield Problem(
                key="train.context_ranks",
                value=str(train.context_ranks),
                what=what,
                fix=f"take out {setting}",
            )


def data_ranks(train: "TrainConfig", *, num_ranks: int) -> int:
    """Return how many packs the ranks of a run train on at once.

    Raises:
        ConfigError: the ranks cannot be shared out in groups of `context_ranks`, or the packs of a
            step among the groups.
    """
    if num_ranks % train.context_ranks:
        raise ConfigError(
            f"{num_ranks} rank{'s' * (num_ranks > 1)} cannot be cut into groups of "
            f"{train.context_ranks}",
            where=f"train.context_ranks={train.context_ranks}",
            fix=f"start a multiple of {train.context_ranks} ranks (`smolvlm launch --nproc`), or "
            "lower it",
        )
    groups = num_ranks // train.context_ranks
    if train.packs_per_step % groups:
        who = f"{groups} ranks" if train.context_ranks == 1 else f"{groups} groups of ranks"
        raise ConfigError(
            f"train.packs_per_step={train.packs_per_step} cannot be dealt to {who}",
            where="train.packs_per_step",
            fix=f"set it to a multiple of {groups}",
        )
    return groups
