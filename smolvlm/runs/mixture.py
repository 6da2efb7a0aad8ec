"""A mixture by itself, or a run file's: how it is read, measured and checked. No model's weights
are needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from smolvlm.build.configs import published_config
from smolvlm.build.processor import PictureSettings, write_processor
from smolvlm.check.check_rows import CheckResult, check_rows
from smolvlm.check.unused_tokens import unused_tokens
from smolvlm.checkpoints.base import base_of_run
from smolvlm.checkpoints.load import load_processor
from smolvlm.config.load import load_run_config
from smolvlm.config.method import RowKind
from smolvlm.config.schema import DataConfig, RunConfig
from smolvlm.config.yaml_text import read_yaml
from smolvlm.datasets.builder import budget_of, open_mixture, read_prompt
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.length_cache import Engine, Report, measure_sources
from smolvlm.datasets.packing.measured import MeasuredSet, RowRequirements, settle_rows
from smolvlm.datasets.packing.plan import Plan
from smolvlm.datasets.packing.tile_use import TileUse
from smolvlm.datasets.rows.conversations import unread_keys
from smolvlm.disk.disk_space import free_bytes
from smolvlm.errors import located
from smolvlm.runs.evaluation_settings import bare_config
from smolvlm.runs.model import Say, nothing, with_model
from smolvlm.train.arguments import planned_length, trains_in_bf16
from smolvlm.train.cache_worth import CacheWorth
from smolvlm.train.run_model import cache_folder, feature_bytes, prompt_of_model

RELEASED = "HuggingFaceTB/SmolVLM-256M-Instruct"
"""Whose processor measures where none is named; its tokenizer and picture settings are built here,
without the hub."""

ROWS_ASKED_FOR_KEYS = 1000
"""Rows of a source that a preparation looks at for keys that are not read; a check looks at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureSettings:
    """What a mixture is read with."""

    data: DataConfig
    prompt: PromptSettings
    kind: RowKind | None = None
    """Of its rows; None is any."""
    new_tokens: tuple[str, ...] = ()
    run: RunConfig | None = None
    """Whose mixture it is; None of a mixture by itself."""
    feature_bytes: int | None = None
    """Of a tile in the run's vision cache; None where it keeps none."""


def settings_of_run(config: RunConfig, *, say: Say = nothing) -> MixtureSettings:
    """Return what a run's mixture is read with."""
    config = with_model(config, say=say)
    base = base_of_run(config.model)
    return MixtureSettings(
        data=config.data,
        prompt=base.prompt(config.data),
        kind=config.train.method.ROWS,
        new_tokens=tuple(new.token for new in config.model.new_tokens),
        run=config,
        feature_bytes=feature_bytes(config, base.config, uses_bf16=trains_in_bf16(config.train)),
    )


def cache_worth(settings: MixtureSettings, measured: MeasuredSet, epoch: Plan) -> CacheWorth | None:
    """Return what keeping features takes in the run of a mixture; None where it keeps none.

    Args:
        settings: of the mixture.
        measured: its rows.
        epoch: all of them once, a pack a step.
    """
    if settings.run is None or settings.feature_bytes is None:
        return None
    train, data = settings.run.train, settings.data
    num_epochs, max_steps = planned_length(train)
    if max_steps is not None:
        num_epochs = max_steps * train.packs_per_step / max(epoch.num_steps, 1)
    once = TileUse.of(epoch, measured.lengths)
    if not once.total_shown:
        return None
    shares = [min(num_epochs - number, 1.0) for number in range(ceil(num_epochs))]
    shown = tuple(round(share * once.total_shown) for share in shares)
    return CacheWorth(
        use=TileUse(num_distinct=min(once.num_distinct, sum(shown)), num_shown=shown),
        feature_bytes=settings.feature_bytes,
        max_bytes=None if data.vision_cache_max_gb is None else int(data.vision_cache_max_gb * 1e9),
        free_bytes=free_bytes(cache_folder(settings.run)),
        is_asked_for=data.vision_cache_dir is not None,
    )


def mixture_settings(
    target: Path,
    overrides: Sequence[str],
    model: str | None,
    *,
    allow_outside_root: bool,
    say: Say = nothing,
) -> MixtureSettings:
    """Return a run file's settings; or of a bare mixture, defaults and any kind of rows.

    Args:
        target: a mixture's YAML, or a run file's.
        overrides: `section.key=value`.
        model: whose processor measures; None is the run file's, or the released 256M checkpoint's.
        allow_outside_root: as `data.allow_outside_root`.
        say: receives a note before anything that takes minutes.

    Raises:
        ConfigError: what is wrong, where, and how to fix it.
    """
    changes = [*overrides, *(["data.allow_outside_root=true"] if allow_outside_root else [])]
    content = read_yaml(target)
    if isinstance(content, dict) and {"model", "data"} <= content.keys():
        model_override = [f"model.path={model}"] if model else []
        return settings_of_run(load_run_config(target, [*changes, *model_override]), say=say)
    config = bare_config(model or RELEASED, [f"data.mixture={target.absolute()}", *changes])
    if model is not None:
        return MixtureSettings(data=config.data, prompt=prompt_of_model(config.model, config.data))
    with TemporaryDirectory() as folder:
        published_config("256M", model_type="idefics3").save_pretrained(folder)
        write_processor(
            Path(folder),
            model_type="idefics3",
            tile_side_px=512,
            tokens_per_tile=64,
            pictures=PictureSettings(longest_edge_px=2048),
        )
        with located(RELEASED):
            prompt = read_prompt(load_processor(folder), config.data)
        return MixtureSettings(data=config.data, prompt=prompt)


def prepare_mixture(
    settings: MixtureSettings,
    *,
    engine: Engine = "local",
    num_workers: int | None = None,
    report: Report | None = None,
) -> MeasuredSet:
    """Measure every row of a mixture and keep the sizes for training; count bad rows.

    Args:
        settings: what it is read with.
        engine: what measures.
        num_workers: processes of the local engine; None is one a core.
        report: receives progress.
    """
    data, prompt = settings.data, settings.prompt
    sources = open_mixture(data.mixture, data)
    sizes = measure_sources(
        sources, prompt, engine=engine, num_workers=num_workers, keeping="all", report=report
    )
    measured = settle_rows(
        sources,
        sizes,
        requirements=_requirements(settings),
        on_bad_sample=data.on_bad_sample,
        max_bad_fraction=data.max_bad_fraction,
        only_counts=True,
    )
    keys = [unread_keys(source, max_rows=ROWS_ASKED_FOR_KEYS) for source in sources]
    counts = tuple(
        replace(count, unread_keys=unread, left_out_keys=left_out)
        for count, (unread, left_out) in zip(measured.counts, keys, strict=True)
    )
    return replace(measured, counts=counts)


def _requirements(settings: MixtureSettings) -> RowRequirements:
    return RowRequirements(
        budget=budget_of(settings.data),
        kind=settings.kind,
        context_tokens=settings.prompt.context_tokens,
    )


def check_mixture(
    settings: MixtureSettings,
    *,
    held_out: Path | None = None,
    num_workers: int | None = None,
    report: Report | None = None,
) -> CheckResult:
    """Read every row of a mixture, decode every picture and clip, and return what is wrong.

    Args:
        settings: what it is read with.
        held_out: mixture to look for leaks into; a run's `eval_mixture` by default.
        num_workers: processes; None is one a core.
        report: receives progress.
    """
    data = settings.data
    other = held_out.absolute() if held_out is not None else data.eval_mixture
    sources = open_mixture(data.mixture, data)
    evaluated = open_mixture(other, data) if other is not None else ()
    result = check_rows(
        sources,
        evaluated,
        settings.prompt,
        requirements=_requirements(settings),
        num_workers=num_workers,
        report=report,
    )
    return replace(
        result, findings=(*result.findings, *unused_tokens(settings.new_tokens, sources))
    )
