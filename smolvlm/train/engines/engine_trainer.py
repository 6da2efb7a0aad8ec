"""transformers' trainer on the engine that a run asks for: what it does differently in shards.

The loop, DDP and DeepSpeed are transformers' and accelerate's. FSDP2 is torch's own
(`sharding.py`): accelerate is told that the model is placed, and gathers nothing. The optimizer's
state is saved by name and whole under both, so that a run may be resumed under another engine and
on another number of ranks. Master weights (`master_weights.py`) begin with training and end with
it; between ranks their gradients are averaged here, in place of DDP.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import DistributedDataParallelKwargs
from transformers import Trainer, TrainerState

from smolvlm.config.engine import EngineName
from smolvlm.model.context_ranks.group import ContextGroup
from smolvlm.protocols import VisionLanguageModel
from smolvlm.train.best import find_best_again
from smolvlm.train.context_packs import check_same_packs
from smolvlm.train.engines.sharding import (
    check_shards,
    gathered,
    is_sharded,
    load_whole_state,
    shard,
    whole_state,
)
from smolvlm.train.master_weights import MasterWeights
from smolvlm.train.memory import has_memory_for
from smolvlm.train.optimizer_state import (
    FILE_NAME,
    load_named_state,
    named_state,
    num_state_bytes,
    read_state,
)
from smolvlm.train.ranks.rank_log import RankLog
from smolvlm.train.ranks.step_watch import StepWatch

SCHEDULE = "scheduler.pt"


class EngineTrainer(Trainer):
    """See the module's first lines."""

    model: VisionLanguageModel
    engine: EngineName = "ddp"
    say: Callable[[str], None] = staticmethod(lambda _: None)
    """Told on one rank what the engine holds, once it does."""
    watch: StepWatch = StepWatch(None, rank=0)
    """Ends a rank that stands still."""
    write_later: Callable[[Callable[[], None]], None] = staticmethod(lambda write: write())
    """Given what writes a checkpoint's largest file, to be done before its marker."""
    rank_log: RankLog = RankLog(rank=0, num_ranks=1, on_cuda=False)
    """Notes what this rank's packs take."""
    make_masters: Callable[[VisionLanguageModel], MasterWeights] | None = None
    """Rounds the weights that compute; None trains them as they are."""
    masters: MasterWeights | None = None
    """While the run trains."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, watched; the model's weights are float32 again behind it."""
        try:
            with self.watch.open():
                return super().train(*args, **kwargs)
        finally:
            masters, self.masters = self.masters, None
            if masters is not None:
                masters.release()

    def stepped(self, model: Any) -> Any:
        """Return the parameters that the optimizer has, by the model's names."""
        return model if self.masters is None else self.masters.stepped

    def saved_weights(self) -> AbstractContextManager[None]:
        """Let the model hold what is saved and loaded, not what it computes with."""
        return nullcontext() if self.masters is None else self.masters.in_float32()

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        """Let gradients of several ranks be views of the buckets that DDP sums.

        A copy of all gradients is spared, in memory and in time. transformers (5.23) has no setting
        for it.
        """
        built = super()._build_accelerator_args(**kwargs)
        for handler in built["kwargs_handlers"]:
            if isinstance(handler, DistributedDataParallelKwargs):
                handler.gradient_as_bucket_view = True
        return built

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any, **kwargs: Any) -> Any:
        """Collect a step's packs, watched and timed."""
        self.watch.beat("loading", self.state.global_step + 1)
        batches, num_items = super().get_batch_samples(
            self.rank_log.waiting(epoch_iterator), *args, **kwargs
        )
        group = cast("ContextGroup | None", self.model.context_group)
        if group is not None:
            check_same_packs(group, batches)
        return batches, num_items

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Learn from a pack, watched."""
        self.watch.beat("forward", self.state.global_step + 1, inputs["info"].rows)
        loss = super().training_step(model, inputs, *args, **kwargs)
        if self.masters is not None:
            self.masters.add_gradients()
            if self.accelerator.sync_gradients and self.args.world_size > 1:
                self.masters.mean_over_ranks(
                    torch.distributed.all_reduce, num_ranks=self.args.world_size
                )
        self.watch.beats.reach("updating")
        return loss

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """What comes behind the weights' update: ranks meet in it where a line is due."""
        self.watch.beats.reach("logging")
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """Cut the model into shards where the engine does, before its optimizer is built.

        Weights of a checkpoint are in it by now.
        """
        if self.engine == "fsdp2":
            shard(self.model, self.args.device)
        elif self.make_masters is not None:
            self.masters = self.make_masters(self.model)
        if self.engine == "fsdp2" or self.masters is not None:
            self.optimizer = None  # it was built of the weights as they were
            # It is on its device, and its gradients are not averaged by DDP.
            self.accelerator.prepare_model = partial(
                self.accelerator.prepare_model, evaluation_mode=True
            )
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.engine == "fsdp2":
            line = check_shards(self.model, num_ranks=self.args.world_size)
            if self.is_world_process_zero():
                self.say(line)
        if self.masters is not None:
            self._bare_optimizer().register_step_post_hook(self.masters.round_again)
            if self.is_world_process_zero():
                self.say(str(self.masters))
        return prepared

    def _clip_grad_norm(self, model: Any) -> Any:
        norm: Any = super()._clip_grad_norm(self.stepped(model))
        return gathered(norm)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm: Any = super()._get_grad_norm(self.stepped(model), grad_norm)
        return gathered(norm)

    # ---- what is written and read

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save the weights that are stepped."""
        with self.saved_weights():
            super().save_model(*args, **kwargs)

    def whole_state(self) -> dict[str, torch.Tensor] | None:
        """Return the weights of a model in shards, on the rank that writes; every rank calls it.

        None of a model that is whole anyway.
        """
        if not is_sharded(self.model):
            return None
        return whole_state(self.model, keeps=self.args.should_save)

    def train_from(self, checkpoint: Path | None) -> None:
        """Train to the last step, from a checkpoint or from the first step."""
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def restore_stopped(self, checkpoint: Path | None) -> None:
        """Take up the best model of a run that has stopped early, in place of training on.

        Args:
            checkpoint: the last one, in the run's folder.
        """
        assert checkpoint is not None
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        find_best_again(self.state, checkpoint.parent)
        self._load_best_model()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not is_sharded(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        for path in sorted(Path(resume_from_checkpoint).glob("model*.safetensors")):
            from safetensors.torch import load_file

            load_whole_state(self.model, load_file(path))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        is_writer, optimizer = self.args.should_save, self._bare_optimizer()
        is_later = has_memory_for(num_state_bytes(optimizer))
        state = named_state(self.stepped(self.model), optimizer, keeps=is_writer, copies=is_later)
        if is_writer:
            schedule: Any = self.lr_scheduler
            torch.save(schedule.state_dict(), Path(output_dir) / SCHEDULE)
            write = partial(torch.save, state, Path(output_dir) / FILE_NAME)
            if is_later:
                self.write_later(write)
            else:
                write()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        schedule: Any = self.lr_scheduler
        stepped, state = self.stepped(self.model), read_state(Path(checkpoint))
        load_named_state(stepped, self._bare_optimizer(), state)
        saved = torch.load(Path(checkpoint) / SCHEDULE, map_location="cpu", weights_only=True)
        schedule.load_state_dict(saved)

    def _bare_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer without accelerate's wrapper."""
        optimizer: Any = self.optimizer
        return getattr(optimizer, "optimizer", optimizer)
