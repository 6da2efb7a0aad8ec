"""Where and how a run computes: device, precision, kernels, versions, commit.

In: the settings, the trainer's arguments, the loaded model. Out: `RunFacts`, which prints itself as
one line for the start of a run and as the objects of `run.json`. Everything is read once, and
nothing waits for a device.
"""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from smolvlm.config.checkpointing import Checkpointing
from smolvlm.config.context_ranks import ContextExchange
from smolvlm.config.engine import EngineName
from smolvlm.config.quantization import Quantization
from smolvlm.config.schema import ModelConfig, RunConfig
from smolvlm.model.attention.dense import TILE_ATTENTION
from smolvlm.model.attention.rule import SCOPE_ATTENTION, attention_kind
from smolvlm.protocols import TextConfig, VisionConfig, VisionLanguageModel
from smolvlm.train.versions import Commit, source_commit, versions

SHOWN_VERSIONS = ("torch", "transformers", "cuda", "smolvlm")
"""In the line; `run.json` has the others too."""
_CPU_INFO = Path("/proc/cpuinfo")
_NAMES = {"sdpa": "SDPA", TILE_ATTENTION: "SDPA"}
"""`cpu_choices.json` beside it says where a CPU takes products instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What one start of a run computes on and with."""

    device_type: str
    """`cpu`, `mps` or `cuda`."""
    device_name: str
    """What its maker calls it."""
    num_ranks: int
    engine: EngineName
    """How they share the work."""
    context_ranks: int
    """How many of them hold each pack together."""
    context_exchange: ContextExchange | None
    """How those attend to each other's tokens; None where each rank has whole packs."""
    num_threads: int | None
    """Of each rank, on a CPU; None elsewhere."""
    weights_dtype: str
    quantization: str | None
    """Which towers' frozen weights are held in how many bits; None is none."""
    autocast_dtype: str | None
    """None is no autocast: products are computed in the type of the weights."""
    has_master_weights: bool
    """Whether linear layers hold rounded weights, and `weights_dtype` is of what is stepped."""
    float32_products: str
    """What products of float32 matrices may be computed in: `float32`, `tf32` or `bf16`."""
    language_attention: str
    vision_attention: str
    optimizer: str
    """As `train.optim` names it."""
    is_optimizer_fused: bool
    activation_checkpointing: Checkpointing
    is_compiled: bool
    """Whether `train.torch_compile` is on."""
    versions: Mapping[str, str]
    commit: Commit | None
    """Of this program's source; None where it is not a git checkout."""

    def line(self) -> str:
        """Return all that a reader of the log wants to know of it, in one line."""
        threads = f", {_counted(self.num_threads, 'thread')}" if self.num_threads else ""
        ranks = f" on {self.num_ranks} ranks ({self._sharing()})" if self.num_ranks > 1 else ""
        parts = (
            f"{self.device_type} ({self.device_name}{threads}){ranks}",
            self._precision_words(),
            f"attention: language {self.language_attention}, vision {self.vision_attention}",
            self.optimizer if self.is_optimizer_fused else f"{self.optimizer} (not fused)",
            f"activation checkpointing {_choice_words(self.activation_checkpointing)}",
            f"compile {_on_or_off(self.is_compiled)}",
            self._version_words(),
        )
        return f"{'runs on':<16}{'; '.join(parts)}"

    def _sharing(self) -> str:
        """Return how ranks share the work: `fsdp2, 2 to a pack, ring`."""
        if self.context_exchange is None:
            return self.engine
        return f"{self.engine}, {self.context_ranks} to a pack, {self.context_exchange}"

    def _precision_words(self) -> str:
        """Return the types of weights and products: `float32 weights, bfloat16 autocast`."""
        parts = [f"{self.weights_dtype} {'master ' * self.has_master_weights}weights"]
        if self.quantization:
            parts.append(self.quantization)
        parts.append(f"{self.autocast_dtype or 'no'} autocast")
        if self.float32_products != "float32":
            parts.append(f"{self.float32_products} for float32 products")
        return ", ".join(parts)

    def _version_words(self) -> str:
        shown = [name for name in SHOWN_VERSIONS if name in self.versions]
        words = ", ".join(f"{name} {self.versions[name]}" for name in shown)
        if self.commit is None:
            return words
        modified = " (modified)" if self.commit.is_modified else ""
        return f"{words} at {self.commit.name[:12]}{modified}"

    def _context(self) -> dict[str, object]:
        """Return `context_ranks`, and how they exchange where there are several."""
        if self.context_exchange is None:
            return {"context_ranks": self.context_ranks}
        return {"context_ranks": self.context_ranks, "context_exchange": self.context_exchange}

    def as_json(self) -> dict[str, object]:
        """Return the facts as `run.json` holds them: `device`, `kernels`, `versions`, `commit`."""
        return {
            "device": {
                "type": self.device_type,
                "name": self.device_name,
                "num_ranks": self.num_ranks,
                "engine": self.engine,
                **self._context(),
                "num_threads": self.num_threads,
            },
            "kernels": {
                "weights_dtype": self.weights_dtype,
                "quantization": self.quantization,
                "autocast_dtype": self.autocast_dtype,
                "master_weights": self.has_master_weights,
                "float32_products": self.float32_products,
                "language_attention": self.language_attention,
                "vision_attention": self.vision_attention,
                "optimizer": self.optimizer,
                "fused_optimizer": self.is_optimizer_fused,
                "activation_checkpointing": self.activation_checkpointing,
                "torch_compile": self.is_compiled,
            },
            "versions": dict(self.versions),
            "commit": self.commit.name if self.commit else None,
            "modified": self.commit.is_modified if self.commit else None,
        }


def run_facts(
    config: RunConfig, arguments: TrainingArguments, model: VisionLanguageModel
) -> RunFacts:
    """Gather the facts of this start.

    Args:
        config: the run's settings.
        arguments: made of them.
        model: as it is trained.
    """
    device = arguments.device
    optimizer = OptimizerNames(arguments.optim).value
    return RunFacts(
        device_type=device.type,
        device_name=device_name(device),
        num_ranks=arguments.world_size,
        engine=config.train.engine,
        context_ranks=config.train.context_ranks,
        context_exchange=config.train.context_exchange if config.train.context_ranks > 1 else None,
        num_threads=torch.get_num_threads() if device.type == "cpu" else None,
        weights_dtype=config.model.dtype,
        quantization=_quantization(config.quantization),
        autocast_dtype="bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else None,
        has_master_weights=config.train.master_weights,
        float32_products=_float32_products(device.type),
        language_attention=_language_attention(model.config.text_config, device.type, config.model),
        vision_attention=_stock_attention(model.config.vision_config),
        optimizer=optimizer,
        is_optimizer_fused="fused" in optimizer,
        activation_checkpointing=config.train.activation_checkpointing,
        is_compiled=bool(arguments.torch_compile),
        versions=versions(device_type=device.type),
        commit=source_commit(),
    )


def device_name(device: torch.device) -> str:
    """Return what its maker calls a device; on MPS and a CPU the processor, or its architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


def cpu_name() -> str:
    """Return what its maker calls this machine's processor, or else its kind."""
    return _cpu_model() or platform.processor() or platform.machine()


def _cpu_model() -> str | None:
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        return answer.stdout.strip() or None
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == "model name"), None)


def _quantization(settings: Quantization) -> str | None:
    """Return what is quantised in words, such as `language in 4 bits (nf4)`."""
    if not settings.bits:
        return None
    codebook = f" ({settings.codebook})" if settings.bits == 4 else ""
    return f"{' and '.join(settings.parts)} in {settings.bits} bits{codebook}"


def _float32_products(device_type: str) -> str:
    """Return what products of float32 matrices may be computed in.

    `torch.get_float32_matmul_precision` raises once the newer settings were used, as by
    transformers.
    """
    backend: Any = torch.backends.cuda if device_type == "cuda" else torch.backends.mkldnn
    precision: str = backend.matmul.fp32_precision
    return "float32" if precision in ("none", "ieee") else precision


def _language_attention(text_config: TextConfig, device_type: str, settings: ModelConfig) -> str:
    """Return how packs are attended."""
    if text_config._attn_implementation != SCOPE_ATTENTION:
        return _stock_attention(text_config)
    return attention_kind(device_type, is_varlen=settings.attention == "varlen")


def _stock_attention(config: VisionConfig | TextConfig) -> str:
    name = str(config._attn_implementation)
    return _NAMES.get(name, name)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _choice_words(choice: Checkpointing) -> str:
    """Return `on`, `off`, or the tower that it is on in."""
    if isinstance(choice, bool):
        return _on_or_off(choice)
    return f"in the {choice.replace('_', ' ')}"


def _on_or_off(value: bool) -> str:
    return "on" if value else "off"
