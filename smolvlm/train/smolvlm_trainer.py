"""The trainer: transformers' own loop over planned packs.

In: a model, a `PackDataset`, learning rates by tower. Out: checkpoints, metrics, a trained model.
The class holds overrides alone; what they decide stands with others:
- the sampler, the loader: the plan's order is the order (`prefetch.py`);
- the normalizer: sum of the packs' shares over the step and all ranks, so the loss is token-exact
  whatever they hold;
- the loss: a `StepPolicy`, and the vision cache is fed from it (`step.py`);
- the optimizer: groups by tower, checked on the live optimizer (`optim.py`);
- logs: a `RunLog` (`log.py`);
- saving: adapters as an adapter folder, the processor, the marker of a whole checkpoint
  (`checkpoint.py`);
- evaluation: by generation, through a callable that the caller brings.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import TrainingArguments
from transformers.trainer_callback import DefaultFlowCallback, PrinterCallback, ProgressCallback

from smolvlm.datasets.dataset import PackDataset
from smolvlm.disk.system_errors import os_errors_of
from smolvlm.protocols import VisionLanguageModel
from smolvlm.train.batch import PackInfo, as_batch
from smolvlm.train.callbacks import PlanFlowCallback, StartLineCallback, WholeGradientCallback
from smolvlm.train.checkpoint import CheckpointFinisher, final_model
from smolvlm.train.checkpoint_folder import numbers_alone, saved_step
from smolvlm.train.engines.engine_trainer import EngineTrainer
from smolvlm.train.engines.sharding import is_sharded, whole_weights
from smolvlm.train.finite import FiniteWatch
from smolvlm.train.flops import compute_cost, peak_flops_of_ranks
from smolvlm.train.log import as_logged, pack_flops
from smolvlm.train.optim import (
    build_optimizer,
    check_groups,
    groups_table,
    rates_by_tower,
    tower_groups,
)
from smolvlm.train.prefetch import prefetched_packs
from smolvlm.train.ranks.beats import RankBeats
from smolvlm.train.ranks.rank_log import RankLog
from smolvlm.train.ranks.step_watch import StepWatch
from smolvlm.train.resting import rest_optimizer
from smolvlm.train.schedule import schedule_by_group
from smolvlm.train.skipped_rows import SkippedRows
from smolvlm.train.trainer_parts import TrainerParts


class SmolVLMTrainer(EngineTrainer):
    """See the module's first lines."""

    train_dataset: PackDataset

    def __init__(
        self,
        model: VisionLanguageModel,
        args: TrainingArguments,
        *,
        train_dataset: PackDataset,
        parts: TrainerParts,
    ) -> None:
        self._parts, self.engine, self.say = parts, parts.engine, parts.say
        self.make_masters = parts.make_masters
        rank, num_ranks, on_cuda = args.process_index, args.world_size, args.device.type == "cuda"
        self.watch = StepWatch(parts.step_timeout_s, rank=rank, beats=RankBeats.of_run())
        self.rank_log = RankLog(rank=rank, num_ranks=num_ranks, on_cuda=on_cuda)
        self._cost = compute_cost(model)
        self._log = parts.run_log(args, cost=self._cost, ranks=self.rank_log)
        self._checkpoints = CheckpointFinisher(
            parts.files, limit=args.save_total_limit, logs=self._log.paths
        )
        self.write_later = self._checkpoints.write_later
        args.save_total_limit = None  # transformers deletes before the marker is written
        self._skipped = SkippedRows(
            num_rows=len(train_dataset.measured.conversations),
            max_bad_fraction=parts.max_bad_fraction,
        )
        self._infos: list[PackInfo] = []
        self._finite = FiniteWatch()
        eval_rows: Any = [] if parts.evaluations is not None else None
        kinds: Any = {"train_dataset": train_dataset, "eval_dataset": eval_rows}
        super().__init__(model=model, args=args, data_collator=as_batch, **kinds)
        feature_bytes = parts.vision_cache.layout.num_bytes if parts.vision_cache is not None else 0
        self._ahead = prefetched_packs(
            train_dataset, args, feature_bytes=feature_bytes, max_bytes=parts.max_prefetch_bytes
        )
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        # A world of one process is wrapped for gradient reduction too, which waits for every
        # parameter's gradient; and where nothing of the language model trains, a pack of text would
        # have nothing to go back to.
        is_wrapped = torch.distributed.is_available() and torch.distributed.is_initialized()
        model.touches_vision = is_wrapped or not parts.learning_rates.of_tower("language_model")
        for theirs in (DefaultFlowCallback, ProgressCallback, PrinterCallback):
            self.remove_callback(theirs)
        self.callback_handler.callbacks.insert(0, PlanFlowCallback(train_dataset.plan))
        self.add_callback(WholeGradientCallback())
        if parts.evaluations is not None:
            self.add_callback(StartLineCallback(parts.evaluations.at_start, log=self.log))

    # ---- what is trained on

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler:
        assert train_dataset is None or train_dataset is self._ahead
        return SequentialSampler(self.train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        """Return a loader whose workers make packs ahead."""
        size = self._train_batch_size
        return self._get_dataloader(
            self._ahead, "Training", size, self._get_train_sampler, is_training=True
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> Any:
        """Collect a step's packs; each that is taken makes room for a later one."""
        return super().get_batch_samples(map(self._ahead.take, epoch_iterator), num_batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Return the step's normalizer: what its packs on all ranks are, as the method counts it.

        One rank knows it; among several it is summed on the device and stays there.
        """
        self._infos = [batch["info"] for batch in batch_samples]
        weight = sum(self._parts.step.share(info) for info in self._infos)
        if self.args.world_size == 1:
            return max(weight, 1e-12)
        total: Any = self.accelerator.reduce(
            torch.full((), weight, dtype=torch.float64, device=device), "sum"
        )
        return total.clamp_min(1e-12).float()

    def _sum_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        """Sum a CPU tensor over the ranks, on the CPU: for log lines, not for steps."""
        if self.args.world_size == 1:
            return value
        total: Any = self.accelerator.reduce(value.to(self.args.device), reduction="sum")
        return total.cpu()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return this rank's share of the loss times the ranks, since gradients are averaged."""
        assert num_items_in_batch is not None
        pack, info = self._parts.looked_up(inputs)
        self._parts.check_media(info.media_states)
        with self.rank_log.forward(info):
            output = self._parts.step(
                model,
                pack,
                bare_model=self.accelerator.unwrap_model(model),
                normalizer=num_items_in_batch / self.args.world_size,
            )
        self.watch.beats.reach("backward")
        if self._parts.vision_cache is not None and output.computed_features is not None:
            features = output.computed_features[: len(info.tile_keys)]  # no padding
            self._parts.vision_cache.write(info.tile_keys, features)
        self._log.add(info, output.metrics or {}, share=self._parts.step.share(info))
        self._skipped.add(info)
        assert output.loss is not None
        loss = output.loss.float()
        return (loss, output) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return a pack's FLOPs; transformers would multiply parameters by padded tokens."""
        return int(pack_flops(inputs["info"], self._cost))

    # ---- the optimizer

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Build the optimizer with groups by tower."""
        if self.optimizer is None:
            trained: Any = self.model if model is None else model
            groups = tower_groups(
                self.stepped(trained),
                self._parts.learning_rates,
                weight_decay=self.args.weight_decay,
                decay_names=self.get_decay_parameter_names(trained),
            )
            self.optimizer = build_optimizer(self.args, trained, groups)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule, each group's from its own rate."""
        target = self.optimizer if optimizer is None else optimizer
        assert target is not None

        def build() -> torch.optim.lr_scheduler.LRScheduler:
            self.lr_scheduler = None
            return super(SmolVLMTrainer, self).create_scheduler(num_training_steps, target)

        if self.lr_scheduler is None:
            self.lr_scheduler = schedule_by_group(target, build)
        return self.lr_scheduler

    def check_optimizer(self) -> str:
        """Return the table of the live optimizer's groups; raises as `check_groups`."""
        trained, optimizer = self.stepped(self.model), self.create_optimizer()
        return groups_table(check_groups(trained, optimizer, self._parts.learning_rates))

    # ---- what is written

    def fit(self, checkpoint: Path | None, *, has_stopped: bool = False) -> None:
        """Train to the plan's end, from a whole checkpoint or from the start; where the run has
        stopped early, take up its best model.

        Raises:
            SampleError: a picture is corrupt, under `on_bad_sample: error`, or too many are, under
                `skip`; a loader worker died over a row.
            OSError: a checkpoint could not be written; those before it are whole.
            ConfigError: the checkpoint's state holds more than numbers.
        """
        step = 0 if checkpoint is None else saved_step(checkpoint)
        self._ahead.begin_at(step * self.args.gradient_accumulation_steps)
        if self.is_world_process_zero():
            self._log.keep_until(-1 if checkpoint is None else step)
        with self._ahead.in_users_words(), self._checkpoints, numbers_alone(checkpoint):
            begin = self.restore_stopped if has_stopped else self.train_from
            begin(checkpoint)
        rest_optimizer(self.optimizer)
        self._write_rows()
        if self._parts.vision_cache is not None:
            self._parts.vision_cache.flush()

    def save_final(self) -> None:
        """Save the model into the run's folder: beside, synced, and then file by file.

        Raises:
            OSError: it cannot be written; what was there is as it was.
        """
        out, meet = Path(self.args.output_dir or "."), self.accelerator.wait_for_everyone
        with final_model(out, is_writer=self.args.should_save, meet=meet) as folder:
            self.save_model(str(folder))

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Note which rows the step learns from, before its first pack."""
        self._checkpoints.check()
        if self._infos:
            self._log.add_rows(self.state.global_step + 1, self._infos)
            if self.args.world_size == 1:
                self._write_rows()
        infos, self._infos = self._infos, []
        loss = super().training_step(model, inputs, *args, **kwargs)
        rows = [where for info in infos for where in info.where]
        self._finite.add(loss, step=self.state.global_step + 1, rows=rows)
        return loss

    def _write_rows(self) -> None:
        self._log.write_rows(is_writer=self.is_world_process_zero())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Complete a log line, hand it on, and write it to `metrics.jsonl`."""
        if "loss" in logs:
            self._finite.check(
                self._sum_over_ranks, step=self.state.global_step, grad_norm=logs.get("grad_norm")
            )
            logs.pop("learning_rate", None)
            step, peak = self.state.global_step, peak_flops_of_ranks(self.args)
            logs |= self._log.step_line(self._sum_over_ranks, step=step, peak_flops=peak)
            self._write_rows()
        super().log(logs, start_time)
        if self.is_world_process_zero() and (
            "loss" in logs or any(key.startswith("eval_") for key in logs)
        ):
            self._log.write({"step": self.state.global_step, **logs})

    def _get_learning_rate(self) -> float:
        """Note every tower's rate; the loop asks before the scheduler moves on."""
        assert self.optimizer is not None
        self._log.rates = rates_by_tower(self.optimizer)
        return super()._get_learning_rate()

    def evaluate(self, *_args: object, **_kwargs: object) -> dict[str, float]:
        """Evaluate by generation with the callable given at construction."""
        assert self._parts.evaluations is not None
        rest_optimizer(self.optimizer)
        with self._log.watch.paused(), self.watch.paused(), whole_weights(self.model):
            metrics = as_logged(self._parts.evaluations.evaluate(self.model))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """Save the model, or its adapters alone, and the processor with it."""
        folder = Path(output_dir or self.args.output_dir or ".")
        adapters = self._parts.files.adapters
        state_dict = self.whole_state() if state_dict is None else state_dict
        if adapters is None:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            adapters.save(self.accelerator.unwrap_model(self.model), folder, state_dict)
            torch.save(self.args, folder / "training_args.bin")
        if self.args.should_save:
            self._parts.files.complete(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._parts.files.adapters is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            assert self.model is not None
            self._parts.files.adapters.restore(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        rest_optimizer(self.optimizer)  # else its next move would be from weights that are gone
        with self.saved_weights():
            if self._parts.files.adapters is None and not is_sharded(self.model):
                super()._load_best_model()
            else:
                self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a checkpoint, and have it marked whole and older ones deleted behind the steps."""
        rest_optimizer(self.optimizer)
        self._finite.check(self._sum_over_ranks, step=self.state.global_step, model=self.model)
        folder = Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            self._checkpoints.begin(folder)
        self.accelerator.wait_for_everyone()
        with self._checkpoints.dropping(folder), os_errors_of(folder), self.watch.paused():
            super()._save_checkpoint(model, trial)
        self._write_rows()
        self._parts.save_rows(folder, is_writer=self.args.should_save)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            step, best = self.state.global_step, self.state.best_model_checkpoint
            self._checkpoints.finish(folder, step=step, best=best)

    def finish_checkpoint(self) -> None:
        """Return once the last checkpoint has its marker; raises OSError where it cannot be."""
        self._checkpoints.wait()
