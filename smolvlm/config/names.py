"""Which names the run file knows, and what an unknown one was probably meant to be."""

from collections.abc import Mapping
from typing import Any

from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.schema import SECTIONS, UNAVAILABLE_KEYS, UNAVAILABLE_SECTIONS, own_names
from smolvlm.config.suggestions import did_you_mean, nearest
from smolvlm.config.training_arguments import FORMER, REFUSED, argument_types


def known_sections(settings: Mapping[Any, Any], *, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """Return each section's settings that have a known name; the rest goes to `problems`.

    A missing or empty section is an empty mapping. Names of `TrainingArguments` stay beside `train`'s own.
    """
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for section, content in settings.items():
        if section in UNAVAILABLE_SECTIONS:
            what = "not available in this version"
            problems.append(Problem(key=section, what=what, fix="take the section out"))
        elif section not in SECTIONS:
            problems.append(_unknown_section(str(section), content))
        elif not isinstance(content, dict | None):
            what = "a section is a mapping of settings"
            problems.append(
                Problem(key=section, value=shown_value(content), what=what, fix="write one `key: value` a line")
            )
        else:
            for name, value in (content or {}).items():
                problem = _name_problem(section, str(name), value)
                if problem is None:
                    sections[section][name] = value
                else:
                    problems.append(problem)
    return sections


def _unknown_section(section: str, content: Any) -> Problem:
    """Return the problem of an unknown name at the top, which may be a setting that lost its section."""
    homes = [home for home in SECTIONS if section in own_names(home)]
    if homes:
        fix: str | None = f"write it as {homes[0]}.{section}"
    elif section in REFUSED:
        fix = REFUSED[section]
    elif not isinstance(content, dict) and section in argument_types():
        fix = f"write it as train.{section}"
    else:
        fix = did_you_mean(section, SECTIONS) or f"the sections are {', '.join(SECTIONS)}"
    value = None if isinstance(content, dict) else _shown(section, content)
    return Problem(key=section, value=value, what="no such section", fix=fix)


def _name_problem(section: str, name: str, value: Any) -> Problem | None:
    """Return why a setting's name cannot stand in its section, or None."""
    if name in own_names(section):
        return None
    key, shown = f"{section}.{name}", _shown(name, value)
    if key in UNAVAILABLE_KEYS:
        return Problem(key=key, value=shown, what=UNAVAILABLE_KEYS[key], fix="take it out")
    if section == "train":
        if name in REFUSED or name in FORMER:
            return Problem(key=key, value=shown, what="cannot take effect", fix=REFUSED.get(name) or FORMER[name])
        if name in argument_types():
            return None
    return Problem(key=key, value=shown, what="no such setting", fix=_meant(section, name))


def _meant(section: str, name: str) -> str:
    """Return a hint at the setting meant: the nearest here, or the same name elsewhere, or the nearest elsewhere."""
    by_section = {other: own_names(other) for other in SECTIONS}
    by_section["train"] += tuple(argument for argument in argument_types() if argument not in REFUSED)
    elsewhere = {other: names for other, names in by_section.items() if other != section}
    match = nearest(name, by_section[section])
    if match:
        return f"did you mean {section}.{match}?"
    for other, names in elsewhere.items():
        if name in names:
            return f"did you mean {other}.{name}?"
    for other, names in elsewhere.items():
        match = nearest(name, names)
        if match:
            return f"did you mean {other}.{match}?"
    if name in REFUSED:
        return REFUSED[name]
    return f"the settings of `{section}` are {', '.join(own_names(section))}"


def _shown(name: str, value: Any) -> str:
    """Return a value for a message, unless it may be a secret."""
    return "(not shown)" if "token" in name and isinstance(value, str) else shown_value(value)
