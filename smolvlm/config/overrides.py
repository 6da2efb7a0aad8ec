"""`section.key=value` on the command line: text in, the run file's settings with these values put
over them out."""

from collections.abc import Sequence

from smolvlm.config.names import override_for
from smolvlm.config.problems import Problem
from smolvlm.config.yaml_text import Settings, parse_yaml
from smolvlm.errors import ConfigError


def apply_overrides(
    settings: Settings, overrides: Sequence[str], *, problems: list[Problem]
) -> tuple[Settings, frozenset[str]]:
    """Return a copy of `settings` with the overrides in place, and the keys that they set.

    Later overrides win.

    Each is `section.key=value`, the value read as YAML; a key may go deeper
    (`train.fsdp_config.version=2`).

    Args:
        settings: sections of the run file; not changed.
        overrides: as written on the command line.
        problems: receives every override that cannot be read.
    """
    keys: set[str] = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        parts = key.split(".")
        if not equals or len(parts) < 2 or not all(parts) or key.startswith("-"):
            fix = (
                override_for(key.lstrip("-"), text or "VALUE")
                if equals and key.strip("-")
                else None
            )
            what = "an override is written section.key=value"
            problems.append(Problem(key=f"override `{override}`", what=what, fix=fix))
            continue
        try:
            value = parse_yaml(text, where=key)
            settings = _with_value(settings, parts, value)
        except ConfigError as error:
            problems.append(Problem(key=f"override `{override}`", what=error.what, fix=error.fix))
        else:
            keys.add(".".join(parts[:2]))
    return settings, frozenset(keys)


def _with_value(settings: object, parts: Sequence[str], value: object) -> Settings:
    """Return a copy of nested mappings with the value at `parts` replaced."""
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise ConfigError(
            f"there is no mapping to set `{'.'.join(parts)}` in", fix="override the whole value"
        )
    inner = _with_value(settings.get(parts[0]), parts[1:], value) if len(parts) > 1 else value
    return {**settings, parts[0]: inner}
