"""What `model.rope_scaling` cannot stand beside."""

from collections.abc import Iterator

from smolvlm.config.problems import Problem
from smolvlm.config.schema import RunConfig


def rope_problems(config: RunConfig) -> Iterator[Problem]:
    """Yield the scaling where what is saved is an adapter's folder: layers' adapters, or rows of single tokens."""
    saves_adapter = any(entry.is_adapter for _, entry in config.adapters.entries()) or bool(config.token_rows_lr)
    if config.model.rope_scaling is not None and saves_adapter:
        what = "an adapter's folder does not carry it: put onto its base, the adapter would see other positions"
        fix = "extend the context of the base itself, in its config.json (docs/context.md), or train without adapters"
        yield Problem(key="model.rope_scaling", what=what, fix=fix)
