"""A run file and its overrides in, a `RunConfig` out, or one error that lists everything that is
wrong with them.

The walk: YAML -> overrides put over it -> names -> paths -> types -> combinations. A stage goes on
past what an earlier one refused, so that a run file is fixed in one go; combinations are looked at
once every value is legal by itself. Nothing but the run file (and a DeepSpeed file it names) is
opened.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from smolvlm.config.checks import combination_problems
from smolvlm.config.names import known_sections
from smolvlm.config.overrides import apply_overrides
from smolvlm.config.paths import resolve_paths
from smolvlm.config.problems import Problem, problems_error, shown_value
from smolvlm.config.schema import SECTIONS, RunConfig
from smolvlm.config.section import Section
from smolvlm.config.settings_file import read_run_file
from smolvlm.config.suggestions import did_you_mean
from smolvlm.config.yaml_text import Settings, dump_yaml
from smolvlm.errors import ConfigError

_TYPE_WORDS = {
    "missing": "is required",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "less_than": "must be below {lt:g}",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "model_type": Section.MAPPING_WORDS,
    "extra_forbidden": "no such setting",
}
_BUILT_IN_ERRORS = frozenset(get_args(ErrorType))
"""Kinds of error that are pydantic's; the others are raised by sections, and say themselves what is
wrong."""


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return a run's settings: the file's, with the overrides over them and the defaults beneath.

    Args:
        path: the YAML run file.
        overrides: `section.key=value`, the value read as YAML.

    Raises:
        ConfigError: the file cannot be read; or some setting is wrong, and the text lists every
            one: its key, the value given, what is wrong, and the name or value that is probably
            meant.
    """
    content = read_run_file(path)
    if not isinstance(content, dict | None):
        fix = "write the sections `model`, `data` and `train` with their settings beneath"
        raise ConfigError(
            f"the run file is {shown_value(content)}, not a mapping", where=str(path), fix=fix
        )
    return config_from(
        content or {}, overrides, where=str(path), base_dir=path.expanduser().absolute().parent
    )


def config_from(
    content: Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    where: str,
    base_dir: Path | None = None,
) -> RunConfig:
    """Return a run's settings from the mapping that its run file would be.

    Args:
        content: the sections.
        overrides: `section.key=value`, the value read as YAML.
        where: what errors call it.
        base_dir: the folder that relative paths of what is read start from; the current one by
            default.

    Raises:
        ConfigError: as `load_run_config`.
    """
    problems: list[Problem] = []
    settings, overridden = apply_overrides(dict(content), overrides, problems=problems)
    settings = {
        name: _plain(name, content, overridden, problems) for name, content in settings.items()
    }
    sections = known_sections(settings, problems=problems)
    run_dir = Path.cwd() if base_dir is None else base_dir
    sections = resolve_paths(sections, run_dir=run_dir, problems=problems)
    num_before = len(problems)
    fields = {
        name: SECTIONS[name].as_fields(content, run_dir=run_dir, problems=problems)
        for name, content in sections.items()
    }
    are_gathered = len(problems) == num_before
    validated = {
        name: _validated(name, fields[name], sections[name], problems=problems) for name in SECTIONS
    }
    complete = {name: section for name, section in validated.items() if section is not None}
    if are_gathered and len(complete) == len(SECTIONS):
        config = RunConfig.of_sections(complete)
        problems += combination_problems(config)
        if not problems:
            return config
    marked = [
        replace(problem, is_override=".".join(problem.key.split(".")[:2]) in overridden)
        for problem in problems
    ]
    raise problems_error(marked, where=where)


def _plain(
    name: object, content: object, overridden: Collection[str], problems: list[Problem]
) -> object:
    """Return a section with each setting under its one name; anything else as it is."""
    if not isinstance(name, str) or name not in SECTIONS or not isinstance(content, dict):
        return content
    names = {key.partition(".")[2] for key in overridden if key.startswith(f"{name}.")}
    return SECTIONS[name].plain(content, overridden=names, problems=problems)


def dump_run_config(config: RunConfig) -> str:
    """Return the settings as a run file, defaults written out; loading it gives an equal config."""
    sections: dict[str, Settings] = config.model_dump()
    arguments = sections["train"].pop("arguments")
    sections["train"].update(arguments)
    return dump_yaml(_with_text_paths(sections))


def _validated(
    name: str, fields: Settings, written: Settings, *, problems: list[Problem]
) -> Section | None:
    """Return a section as its model, or None after adding its problems to `problems`.

    Args:
        name: of the section.
        fields: of the model.
        written: the same as the run file has it, which is what problems name.
        problems: receives them, one a setting.
    """
    section = SECTIONS[name]
    try:
        return section.variant(fields).model_validate(fields)
    except ValidationError as error:
        first_by_place: dict[tuple[str, ...], ErrorDetails] = {}
        for details in error.errors(include_url=False):
            first_by_place.setdefault(_place(section, details, written), details)
        problems += [
            _type_problem(name, place, details, written)
            for place, details in first_by_place.items()
        ]
        return None


def _place(section: type[Section], details: ErrorDetails, written: Settings) -> tuple[str, ...]:
    """Return where in a section the wrong value stands: its setting, and the key within it."""
    name, *inner = section.written_place(tuple(map(str, details["loc"])))
    value = written.get(name)
    is_within = (
        bool(inner)
        and isinstance(value, dict)
        and (inner[0] in value or details["type"] == "missing")
    )
    return (name, inner[0]) if is_within else (name,)


def _type_problem(
    section: str, place: Sequence[str], details: ErrorDetails, written: Settings
) -> Problem:
    """Return a validation error in the words of the run file."""
    name, key = place[0], ".".join((section, *place))
    holder = written if len(place) == 1 else written[name]
    if place[-1] not in holder:
        return Problem(
            key=key,
            what="is required, and missing",
            fix=f"write it beneath `{key.rpartition('.')[0]}:`",
        )
    value = holder[place[-1]]
    mapping = next(_mappings_in(_annotation(section, name)), None)
    fix = None
    if isinstance(value, str) and details["type"] in ("literal_error", "model_attributes_type"):
        fix = did_you_mean(value, _words_of(section, name))
    elif mapping is not None and details["type"] in ("extra_forbidden", "model_type"):
        names = list(mapping.model_fields)
        noun = mapping.NOUN or f"{section}.{name}"
        fix = did_you_mean(place[-1], names) or f"the settings of {noun} are {', '.join(names)}"
    what = _words(SECTIONS[section].FIELD_WORDS.get(name), mapping, details)
    return Problem(key=key, value=shown_value(value), what=what, fix=fix)


def _words(field_words: str | None, mapping: type[Section] | None, details: ErrorDetails) -> str:
    """Return what is wrong with a value, or what it must be."""
    error_type = details["type"]
    if error_type not in _BUILT_IN_ERRORS:
        return details["msg"]
    if field_words is not None:
        return field_words
    if mapping is not None and error_type == "model_type":
        return mapping.MAPPING_WORDS
    return _TYPE_WORDS.get(error_type, details["msg"]).format_map(details.get("ctx", {}))


def _annotation(section: str, name: str) -> object:
    return SECTIONS[section].settings()[name].annotation


def _mappings_in(annotation: object) -> Iterator[type[Section]]:
    """Yield what a setting is made of that is a mapping of settings itself, or a list of such."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _mappings_in(part)


def _words_of(section: str, name: str) -> list[str]:
    """Return the words that a setting may be; of a mapping, its types."""
    annotation = _annotation(section, name)
    choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
    types = [
        get_args(mapping.model_fields["type"].annotation) for mapping in _mappings_in(annotation)
    ]
    return [*choices, *(word for words in types for word in words)]


def _with_text_paths(value: object) -> object:
    """Return nested mappings and lists with every path as text."""
    if isinstance(value, dict):
        return {key: _with_text_paths(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_with_text_paths(member) for member in value]
    return str(value) if isinstance(value, Path) else value
