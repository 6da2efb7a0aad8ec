"""The trainer: transformers' own loop over planned packs.

In: a model, a `PackDataset`, learning rates by tower. Out: checkpoints, metrics, a trained model. What is
overridden, and why:
- the sampler: the plan's order is the order;
- the normalizer: sum of target weights over all packs of the step on all ranks, so the loss is token-exact whatever
  the packs hold;
- the loss: the model's pack forward, and the vision cache is fed from it;
- the optimizer: groups by tower, checked on the live optimizer;
- logs: sums over ranks since the last line, to `metrics.jsonl`;
- saving: adapters as an adapter folder; the processor goes with every checkpoint, and a marker says that it is whole;
- evaluation: by generation, through a callable that the caller brings.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import DefaultFlowCallback, PrinterCallback, ProgressCallback
from transformers.trainer_utils import rotate_checkpoints
from transformers.training_args import OptimizerNames

from smolvlm.checkpoints.adapters import Adapters
from smolvlm.checkpoints.context import name_rope_for_older_readers
from smolvlm.checkpoints.learning_rates import LearningRates
from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.rows.skipped import BadSamples
from smolvlm.errors import ConfigError, SampleError
from smolvlm.model.towers import TOWERS
from smolvlm.model.vision_cache import VisionCache
from smolvlm.train.batch import PackInfo, as_batch
from smolvlm.train.callbacks import PlanFlowCallback, WholeGradientCallback
from smolvlm.train.flops import compute_cost, peak_flops_per_s
from smolvlm.train.log import LineFile, MethodSums, StepCounts, Stopwatch
from smolvlm.train.methods.method import Method, Supervised
from smolvlm.train.methods.online_reference import OnlineReference
from smolvlm.train.optim import check_groups, groups_table, tower_groups
from smolvlm.train.prefetch import prefetched_packs
from smolvlm.train.resuming import RunIdentity, mark_whole, unmark

Evaluate = Callable[[Any], Mapping[str, float]]
"""Model in, metrics out; keys without the `eval_` prefix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerParts:
    """What the trainer needs besides the model, the arguments and the packs."""

    learning_rates: LearningRates
    save_processor: Callable[[Path], None]
    identity: RunIdentity
    vision_cache: VisionCache | None = None
    adapters: Adapters | None = None
    evaluate: Evaluate | None = None
    log_sample_ids: bool = False
    max_bad_fraction: float = 0.01
    method: Method = field(default_factory=Supervised)
    reference: OnlineReference | None = None
    """Asked before each pack's forward; None where packs come with what the reference thinks, or need none."""
    max_prefetch_bytes: int = 512 * 10**6


class SmolVLMTrainer(Trainer):
    """See the module's first lines."""

    train_dataset: PackDataset

    def __init__(self, model: Any, args: TrainingArguments, *, train_dataset: PackDataset, parts: TrainerParts) -> None:
        self._parts = parts
        self._cost = compute_cost(model)
        self._counts = StepCounts()
        self._watch = Stopwatch()
        self._method_sums = MethodSums(parts.method.metric_names)
        self._infos: list[PackInfo] = []
        self._learned: list[tuple[int, str]] = []
        self._rates: dict[str, float] = {}
        self._skipped = BadSamples(policy="skip", max_fraction=parts.max_bad_fraction)
        self._skipped.num_rows = len(train_dataset.measured.conversations)
        run_dir = Path(args.output_dir or ".")
        self._metrics_file = LineFile(run_dir / "metrics.jsonl")
        self._samples_file = LineFile(run_dir / "samples.jsonl")
        eval_rows: Any = [] if parts.evaluate is not None else None
        super().__init__(
            model=model, args=args, train_dataset=train_dataset, eval_dataset=eval_rows, data_collator=as_batch
        )
        feature_bytes = parts.vision_cache.layout.num_bytes if parts.vision_cache is not None else 0
        self._ahead = prefetched_packs(
            train_dataset, args, feature_bytes=feature_bytes, max_bytes=parts.max_prefetch_bytes
        )
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        # A world of one process is wrapped for gradient reduction too, which waits for every parameter's gradient; and
        # where nothing of the language model trains, a pack of text would have nothing to go back to.
        is_wrapped = torch.distributed.is_available() and torch.distributed.is_initialized()
        model.touches_vision = is_wrapped or not parts.learning_rates.of_tower("language_model")
        self.remove_callback(DefaultFlowCallback)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.callback_handler.callbacks.insert(0, PlanFlowCallback(train_dataset.plan))
        self.add_callback(WholeGradientCallback())

    # ---- what is trained on

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler:
        assert train_dataset is None or train_dataset is self._ahead
        return SequentialSampler(self.train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        """Return a loader whose workers make packs ahead."""
        size = self._train_batch_size
        return self._get_dataloader(self._ahead, "Training", size, self._get_train_sampler, is_training=True)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Collect a step's packs; each that is taken makes room for a later one."""
        return super().get_batch_samples(map(self._ahead.take, epoch_iterator), num_batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Return the step's normalizer: what its packs on all ranks are, as the method counts it.

        One rank knows it; among several it is summed on the device and stays there.
        """
        self._infos = [batch["info"] for batch in batch_samples]
        weight = sum(self._parts.method.share(info) for info in self._infos)
        if self.args.world_size == 1:
            return max(weight, 1e-12)
        total: Any = self.accelerator.reduce(torch.full((), weight, dtype=torch.float64, device=device), "sum")
        return total.clamp_min(1e-12).float()

    def _sum_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor on the CPU over the ranks, on the CPU: for log lines, not for steps."""
        if self.args.world_size == 1:
            return value
        total: Any = self.accelerator.reduce(value.to(self.args.device), reduction="sum")
        return total.cpu()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return this rank's share of the step's loss, times the ranks because gradients are averaged over them."""
        assert num_items_in_batch is not None
        info: PackInfo = inputs["info"]
        normalizer = num_items_in_batch / self.args.world_size
        pack, computed = inputs["pack"], None
        if self._parts.reference is not None:
            judged = self._parts.reference.judge(self.accelerator.unwrap_model(model), pack)
            pack, computed = judged.tensors, judged.computed_features
        output = model(pack=pack, normalizer=normalizer, loss_of=self._parts.method.loss)
        computed = output.computed_features if computed is None else computed
        if self._parts.vision_cache is not None and computed is not None:
            self._parts.vision_cache.write(info.tile_keys, computed)
        self._counts.add(info, self._cost)
        self._method_sums.add(output.metrics or {}, share=self._parts.method.share(info))
        self._note_skipped(info)
        loss = output.loss.float()
        return (loss, output) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        info: PackInfo = inputs["info"]
        return int(
            self._cost.pack(
                num_tokens=info.num_tokens,
                num_computed_tiles=info.num_computed_tiles,
                num_targets=info.num_supervised_tokens,
            )
        )

    def _note_skipped(self, info: PackInfo) -> None:
        known = {row.where for row in self._skipped.skipped}
        new = [row for row in info.skipped if row.where not in known]  # a row comes again in every epoch
        self._skipped.skipped += new
        self._skipped.errors += [SampleError(row.reason, where=row.where) for row in new]
        if new:
            self._skipped.settle()

    # ---- the optimizer

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Build the optimizer with groups by tower."""
        if self.optimizer is None:
            own: Any = self.model if model is None else model
            groups = tower_groups(
                own,
                self._parts.learning_rates,
                weight_decay=self.args.weight_decay,
                decay_names=self.get_decay_parameter_names(own),
            )
            try:
                kind, settings = self.get_optimizer_cls_and_kwargs(self.args, own)
            except ImportError as error:
                fix = 'install what it names; for bitsandbytes: pip install "smolvlm[quantization]"'
                raise ConfigError(
                    str(error), where=f"train.optim={OptimizerNames(self.args.optim).value}", fix=fix
                ) from error
            self.optimizer = kind(groups, **{name: value for name, value in settings.items() if name != "lr"})
        return self.optimizer

    def check_optimizer(self) -> str:
        """Return the table of the live optimizer's groups.

        Raises:
            ConfigError: it does not hold exactly what was asked.
        """
        model: Any = self.model
        return groups_table(check_groups(model, self.create_optimizer(), self._parts.learning_rates))

    # ---- what is written

    def fit(self, checkpoint: Path | None) -> None:
        """Train to the plan's end, from a whole checkpoint or from the start.

        Raises:
            SampleError: a picture is corrupt, under `on_bad_sample: error`, or too many are, under `skip`; a loader
                worker died over a row.
        """
        step = 0
        if checkpoint is not None:
            step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
        self._ahead.begin_at(step * self.args.gradient_accumulation_steps)
        if self.is_world_process_zero():
            self._metrics_file.keep_until(step)
            self._samples_file.keep_until(step)
        with self._ahead.in_users_words():
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._write_samples()
        if self._parts.vision_cache is not None:
            self._parts.vision_cache.flush()

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self._infos and self._parts.log_sample_ids:
            step = self.state.global_step + 1
            self._learned += [(step, where) for info in self._infos for where in info.where]
            if self.args.world_size == 1:
                self._write_samples()
        self._infos = []
        return super().training_step(*args, **kwargs)

    def _write_samples(self) -> None:
        """Write which rows the steps since the last line learned from; several ranks meet for it only where they do
        anyway."""
        if not self._parts.log_sample_ids:
            return
        learned = sorted(gather_object(self._learned))
        self._learned = []
        if self.is_world_process_zero():
            for step, rows in groupby(learned, key=itemgetter(0)):
                self._samples_file.append({"step": step, "where": [where for _, where in rows]})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Complete a log line, hand it on, and write it to `metrics.jsonl`."""
        if "loss" in logs:
            logs.pop("learning_rate", None)
            logs |= self._rates
            totals = self._sum_over_ranks(self._counts.as_vector())
            device = "cuda" if torch.cuda.is_available() and not self.args.use_cpu else "cpu"
            dtype = torch.bfloat16 if self.args.bf16 else torch.float32
            peak = peak_flops_per_s(device, dtype) * self.args.world_size
            logs |= self._counts.metrics(totals, seconds=self._watch.lap(), peak_flops=peak)
            self._counts = StepCounts()
            logs |= self._method_sums.means(self._sum_over_ranks)
            self._write_samples()
        super().log(logs, start_time)
        if self.is_world_process_zero() and ("loss" in logs or any(key.startswith("eval_") for key in logs)):
            self._metrics_file.append({"step": self.state.global_step, **logs})

    def _get_learning_rate(self) -> float:
        """Note every tower's rate; the loop asks before the scheduler moves on."""
        assert self.optimizer is not None
        rates = {f"learning_rate_{tower}": 0.0 for tower in TOWERS}
        self._rates = rates | {f"learning_rate_{own['name']}": float(own["lr"]) for own in self.optimizer.param_groups}
        return super()._get_learning_rate()

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Evaluate by generation with the callable given at construction."""
        assert self._parts.evaluate is not None
        with self._watch.paused():
            metrics = {f"eval_{name}": value for name, value in self._parts.evaluate(self.model).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the model, or its adapters alone, and the processor with it."""
        folder, adapters = Path(output_dir or self.args.output_dir or "."), self._parts.adapters
        if adapters is None:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            adapters.save(self.accelerator.unwrap_model(self.model), folder, state_dict)
            torch.save(self.args, folder / "training_args.bin")
        if self.args.should_save:
            name_rope_for_older_readers(folder / "config.json")
            self._parts.save_processor(folder)
            for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if adapters is None else ():
                (folder / name).unlink(missing_ok=True)  # of an earlier run, and it would be taken for this one's

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._parts.adapters is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            assert self.model is not None
            self._parts.adapters.restore(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self._parts.adapters is None:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a checkpoint and mark it whole; older ones are deleted only then."""
        run_dir = Path(self.args.output_dir or ".")
        folder = run_dir / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            unmark(folder)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, trial)
        self.args.save_total_limit = limit
        self._write_samples()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_whole(folder, self._parts.identity, step=self.state.global_step)
            rotate_checkpoints(str(run_dir), limit, self.state.best_model_checkpoint, use_mtime=True)
