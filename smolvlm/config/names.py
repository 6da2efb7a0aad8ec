"""Which names the run file knows, and what an unknown one was probably meant to be."""

from collections.abc import Mapping
from difflib import get_close_matches
from shlex import quote
from typing import Any

from smolvlm.config.other_trainers import OTHER_TRAINERS
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.schema import SECTIONS, UNAVAILABLE_KEYS, UNAVAILABLE_SECTIONS, own_names
from smolvlm.config.suggestions import did_you_mean, nearest
from smolvlm.config.training_arguments import FORMER, REFUSED, argument_types
from smolvlm.config.yaml_text import Settings

_OF_TWO_MEANINGS = frozenset({("batch_size", "train"), ("batch_size", "data")})
"""(name, section) that another section has, in another sense."""
_VAGUE = 0.6
"""How much a name of `TrainingArguments` is like one that nothing resembles, to be named at all."""


def known_sections(
    settings: Mapping[Any, object], *, problems: list[Problem]
) -> dict[str, Settings]:
    """Return each section's settings that have a known name; the rest goes to `problems`.

    A missing or empty section is an empty mapping. Names of `TrainingArguments` stay beside
    `train`'s own.
    """
    sections: dict[str, Settings] = {section: {} for section in SECTIONS}
    for section, content in settings.items():
        if section in UNAVAILABLE_SECTIONS:
            what = "not available in this version"
            problems.append(Problem(key=section, what=what, fix="take the section out"))
        elif section not in SECTIONS:
            problems.append(_unknown_section(str(section), content))
        elif not isinstance(content, dict | None):
            what = "a section is a mapping of settings"
            problems.append(
                Problem(
                    key=section,
                    value=shown_value(content),
                    what=what,
                    fix="write one `key: value` a line",
                )
            )
        else:
            for name, value in (content or {}).items():
                problem = _name_problem(section, str(name), value)
                if problem is None:
                    sections[section][name] = value
                else:
                    problems.append(problem)
    return sections


def _unknown_section(section: str, content: object) -> Problem:
    """Return the problem of an unknown top-level name, perhaps a setting without its section."""
    homes = [home for home in SECTIONS if section in own_names(home)]
    if homes:
        fix: str | None = f"write it as {homes[0]}.{section}"
    elif section in REFUSED:
        fix = REFUSED[section]
    elif not isinstance(content, dict) and section in argument_types():
        fix = f"write it as train.{section}"
    elif section in OTHER_TRAINERS:
        fix = OTHER_TRAINERS[section]
    else:
        fix = did_you_mean(section, SECTIONS) or f"the sections are {', '.join(SECTIONS)}"
    value = None if isinstance(content, dict) else shown_setting(section, content)
    return Problem(key=section, value=value, what="no such section", fix=fix)


def is_switch(name: str) -> bool:
    """Say whether a setting is true or false and nothing else; `name` may lack its section."""
    section, _, setting = name.rpartition(".")
    for home in [section] if _has(section, setting) else homes_of(setting):
        field = SECTIONS[home].settings().get(setting)
        annotation = field.annotation if field is not None else argument_types()[setting]
        return annotation in (bool, bool | None)
    return False


def is_known(name: str) -> bool:
    """Say whether a setting has or had this name, be it refused; a section may stand before it."""
    setting = name.rpartition(".")[2]
    return bool(homes_of(setting)) or setting in REFUSED or setting in FORMER


def hint_instead_of(name: str) -> str | None:
    """Return what to set instead of a setting that is refused here, or that another trainer has;
    None where a section has it, or nothing is known of it. A section may stand before it."""
    section, _, setting = name.rpartition(".")
    if _has(section, setting):
        return None
    for hints in (REFUSED, FORMER, OTHER_TRAINERS):
        if setting in hints:
            return hints[setting]
    return None


def homes_of(name: str) -> list[str]:
    """Return the sections that have a setting of this name."""
    return [section for section in SECTIONS if _has(section, name)]


def override_for(name: str, text: str) -> str | None:
    """Return a hint at the override for a setting whose section is missing or whose name is wrong.

    Args:
        name: of the setting, or something like it; its section may stand before it.
        text: its value as written.

    Returns:
        None where nothing is like it.
    """
    section, _, setting = name.rpartition(".")
    text = "VALUE" if _may_be_secret(setting) else text
    homes = [section] if _has(section, setting) else homes_of(setting)
    if homes:
        return "write " + " or ".join(f"`{_override(home, setting, text)}`" for home in homes)
    if setting in REFUSED or setting in FORMER:
        return REFUSED.get(setting) or FORMER[setting]
    if setting in OTHER_TRAINERS:
        return OTHER_TRAINERS[setting]
    known = {key: home for home in SECTIONS for key in _names_of(home)}
    match = nearest(setting, known)
    return f"did you mean `{_override(known[match], match, text)}`?" if match else None


def _override(section: str, name: str, text: str) -> str:
    return quote(f"{section}.{name}={text}")


def _has(section: str, name: str) -> bool:
    return section in SECTIONS and name in _names_of(section)


def _names_of(section: str) -> tuple[str, ...]:
    """Return the names that a section takes, those of `TrainingArguments` in `train` too."""
    if section != "train":
        return own_names(section)
    return own_names(section) + tuple(name for name in argument_types() if name not in REFUSED)


def _name_problem(section: str, name: str, value: object) -> Problem | None:
    """Return why a setting's name cannot stand in its section, or None."""
    if name in own_names(section):
        return None
    key, shown = f"{section}.{name}", shown_setting(name, value)
    if key in UNAVAILABLE_KEYS:
        return Problem(key=key, value=shown, what=UNAVAILABLE_KEYS[key], fix="take it out")
    if section == "train":
        if name in REFUSED or name in FORMER:
            return Problem(
                key=key,
                value=shown,
                what="cannot take effect",
                fix=REFUSED.get(name) or FORMER[name],
            )
        if name in argument_types():
            return None
    return Problem(key=key, value=shown, what="no such setting", fix=_meant(section, name))


def _meant(section: str, name: str) -> str:
    """Return a hint at the setting meant: the nearest here, or in another section."""
    by_section = {other: _names_of(other) for other in SECTIONS}
    elsewhere = {other: names for other, names in by_section.items() if other != section}
    for other, names in elsewhere.items():
        if name in names and (name, section) not in _OF_TWO_MEANINGS:
            return f"did you mean {other}.{name}?"
    if name in OTHER_TRAINERS:
        return OTHER_TRAINERS[name]
    match = nearest(name, by_section[section])
    if match:
        return f"did you mean {section}.{match}?"
    for other, names in elsewhere.items():
        match = nearest(name, names)
        if match:
            return f"did you mean {other}.{match}?"
    if name in REFUSED:
        return REFUSED[name]
    known = f"the settings of `{section}` are {', '.join(own_names(section))}"
    return known if section != "train" else f"{known}; {_stock_hint(name)}"


def _stock_hint(name: str) -> str:
    """Return that the names of `TrainingArguments` may stand in `train` too, with the nearest."""
    stock = (known for known in argument_types() if known not in REFUSED)
    close = get_close_matches(name.lower(), stock, n=1, cutoff=_VAGUE)
    near = f", where `{close[0]}` is nearest" if close else ""
    return f"the names of transformers.TrainingArguments are read too{near}"


def shown_setting(name: str, value: object) -> str:
    """Return a value for a message, unless it may be a secret."""
    return "(not shown)" if isinstance(value, str) and _may_be_secret(name) else shown_value(value)


def _may_be_secret(name: str) -> bool:
    """Say whether a name that this version takes no value for may be that of an access token."""
    return "token" in name and not homes_of(name.rpartition(".")[2])
