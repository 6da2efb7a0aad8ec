"""Packs for ranks that hold them together: who reads which, cut how.

In: a run's settings and its ranks. Out: the order of packs in which torch's loader gives the ranks
of a group the same ones, what cuts them, and the group itself; and a check, once a step, that the
ranks of a group did read the same. Every rank reads its group's packs whole and keeps its share: no
rank waits for another's disk.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int64
from transformers import TrainingArguments

from smolvlm.config.train import TrainConfig
from smolvlm.datasets.packing.context_share import ContextCut
from smolvlm.errors import SmolVLMError
from smolvlm.model.attention.flex_rectangle import plan_flex_rectangle
from smolvlm.model.attention.rectangle import plan_parts_rectangle
from smolvlm.model.context_ranks.group import ContextGroup
from smolvlm.train.worker_notes import listed


class DifferentPacksError(SmolVLMError):
    """Ranks that should hold one pack together read different ones."""


def context_cut(train: TrainConfig, arguments: TrainingArguments) -> ContextCut | None:
    """Return what cuts packs for this rank; None where each rank has whole packs."""
    if train.context_ranks == 1:
        return None
    is_cuda = arguments.device.type == "cuda"
    return ContextCut(
        rank=arguments.process_index % train.context_ranks,
        num_ranks=train.context_ranks,
        plan_rectangle=plan_flex_rectangle if is_cuda else plan_parts_rectangle,
        goes_round=train.context_exchange == "ring",
    )


def join_context_group(train: TrainConfig, arguments: TrainingArguments) -> ContextGroup | None:
    """Return this rank's group; None where each rank has whole packs. Every rank calls it."""
    if train.context_ranks == 1:
        return None
    return ContextGroup.join(num_ranks=train.context_ranks, device_type=arguments.device.type)


def context_notes(train: TrainConfig) -> list[str]:
    """Return what is to be said at the start, in lines."""
    if train.context_ranks == 1:
        return []
    ways = {"gather": "are gathered, a layer at a time", "ring": "go round them"}
    words = f"each pack lies on {train.context_ranks} ranks: keys and values"
    return [f"{words} {ways[train.context_exchange]}"]


def repeated_for_groups(
    order: Int64[np.ndarray, " pack"], *, context_ranks: int
) -> Int64[np.ndarray, " item"]:
    """Return an order of packs in which each is handed to the ranks of a group, one after
    another."""
    return np.repeat(order, context_ranks)


def check_same_packs(group: ContextGroup, batches: Iterable[Any]) -> None:
    """Raise where the ranks of a group read different packs for a step; every rank calls it.

    Raises:
        DifferentPacksError: with the rows of this rank.
    """
    batches = list(batches)
    if group.has_same([batch["pack"]["context"].digest for batch in batches]):
        return
    rows = listed([where for batch in batches for where in batch["info"].where])
    raise DifferentPacksError(
        "the ranks of a context group read different packs" + (f": here {rows}" if rows else ""),
        where="train.context_ranks",
        fix="give all ranks the same files; where a row takes about data.max_decode_s to decode, "
        "raise that",
    )
