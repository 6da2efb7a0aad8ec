"""A run's rows, measured and planned: what is known of it before any weight is read.

In: the settings. Out: how rows become prompts, and every step of every epoch.
"""

from functools import partial

from smolvlm.checkpoints.base import Base, base_of_run
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import PlannedData, measure_mixture, plan_data
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.length_cache import Keeping, Report, measure_sources
from smolvlm.train.arguments import planned_length, seed_of


def plan_run(
    config: RunConfig, base: Base | None = None, *, report: Report | None = None
) -> tuple[PromptSettings, PlannedData]:
    """Read the processor, the rows and their headers, and plan every step; the model is not loaded.

    Args:
        config: the settings.
        base: what `model.path` names; None is read here.
        report: receives progress.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to fix it.
    """
    prompt = (base or base_of_run(config.model)).prompt(config.data)
    return prompt, plan_rows(config, prompt, report=report)


def plan_rows(
    config: RunConfig, prompt: PromptSettings, *, report: Report | None = None
) -> PlannedData:
    """Measure a run's rows, and plan every step; arguments and errors as of `plan_run`."""
    num_epochs, max_steps = planned_length(config.train)
    keeping: Keeping = "anew" if config.train.verify_data else "large"
    measured = measure_mixture(
        config.data.mixture,
        config.data,
        prompt=prompt,
        kind=config.train.method.ROWS,
        measure=partial(measure_sources, keeping=keeping, report=report),
    )
    return plan_data(
        measured,
        config.data,
        packs_per_step=config.train.packs_per_step,
        seed=seed_of(config.train),
        num_epochs=num_epochs,
        max_steps=max_steps,
    )
