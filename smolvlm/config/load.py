"""A run file and its overrides in, a `RunConfig` out, or one error that lists everything that is wrong with them.

The walk: YAML -> overrides put over it -> names -> paths -> types -> combinations. A stage goes on past what an earlier
one refused, so that a run file is fixed in one go; combinations are looked at once every value is legal by itself.
Nothing but the run file (and a DeepSpeed file it names) is opened.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from smolvlm.config.adapters import PARTS
from smolvlm.config.checks import combination_problems
from smolvlm.config.method import with_flat_method
from smolvlm.config.names import known_sections
from smolvlm.config.new_tokens import NEW_TOKEN_ERRORS, NewToken
from smolvlm.config.overrides import apply_overrides
from smolvlm.config.paths import resolve_paths
from smolvlm.config.problems import Problem, problems_error, shown_value
from smolvlm.config.schema import SECTIONS, RunConfig, Section, own_names
from smolvlm.config.settings_file import read_run_file
from smolvlm.config.suggestions import did_you_mean
from smolvlm.config.training_arguments import argument_problem
from smolvlm.config.yaml_text import dump_yaml
from smolvlm.errors import ConfigError

_PATH_WORDS = "must be a path"
_LAYERS = "must be two whole numbers, the first layer and the one behind the last, such as [0, 16]"
_FIELD_WORDS = {
    "mixture": "must be a file, or the list or mapping of sources",
    "eval_mixture": "must be a file, or the list or mapping of sources",
    "resume_from_checkpoint": "must be `auto`, `false` or a checkpoint folder",
    "average_frames": "must be 1, 2, 4 or 8",
    "output_dir": _PATH_WORDS,
    "base_dir": _PATH_WORDS,
    "vision_cache_dir": _PATH_WORDS,
    "language_layers": _LAYERS,
    "vision_layers": _LAYERS,
    "new_tokens": "must be a list of texts, or of mappings with `token` and `description`",
}
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
    "model_type": "must be a mapping of settings",
    "extra_forbidden": "no such setting",
}


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return a run's settings: the file's, with the overrides over them and the defaults beneath.

    Args:
        path: the YAML run file.
        overrides: `section.key=value`, the value read as YAML.

    Raises:
        ConfigError: the file cannot be read; or some setting is wrong, and the text lists every one: its key, the value
            given, what is wrong, and the name or value that is probably meant.
    """
    content = read_run_file(path)
    if not isinstance(content, dict | None):
        fix = "write the sections `model`, `data` and `train` with their settings beneath"
        raise ConfigError(f"the run file is {shown_value(content)}, not a mapping", where=str(path), fix=fix)
    return config_from(content or {}, overrides, where=str(path), base_dir=path.expanduser().absolute().parent)


def config_from(
    content: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str, base_dir: Path | None = None
) -> RunConfig:
    """Return a run's settings from the mapping that its run file would be.

    Args:
        content: the sections.
        overrides: `section.key=value`, the value read as YAML.
        where: what errors call it.
        base_dir: the folder that relative paths of what is read start from; the current one by default.

    Raises:
        ConfigError: as `load_run_config`.
    """
    problems: list[Problem] = []
    settings, overridden = apply_overrides(dict(content), overrides, problems=problems)
    _let_overrides_win(settings, overridden)
    settings = with_flat_method(settings, overridden, problems=problems)
    sections = known_sections(settings, problems=problems)
    run_dir = Path.cwd() if base_dir is None else base_dir
    sections = resolve_paths(sections, run_dir=run_dir, problems=problems)
    num_before = len(problems)
    sections["train"] = _with_arguments(sections["train"], run_dir=run_dir, problems=problems)
    are_arguments_legal = len(problems) == num_before
    validated = {name: _validated(name, sections[name], problems=problems) for name in SECTIONS}
    if are_arguments_legal and all(section is not None for section in validated.values()):
        config = _with_frozen_rates(RunConfig.model_validate(validated))
        problems += combination_problems(config)
        if not problems:
            return config
    marked = [replace(problem, is_override=".".join(problem.key.split(".")[:2]) in overridden) for problem in problems]
    raise problems_error(marked, where=where)


def _with_frozen_rates(config: RunConfig) -> RunConfig:
    """Return the settings with the default rate of a tower that `adapters` freezes taken back; a given one stands."""
    frozen = {PARTS[part]: 0.0 for part, entry in config.adapters.entries() if entry.type == "frozen"}
    rates = {name: rate for name, rate in frozen.items() if name not in config.train.model_fields_set}
    return config.model_copy(update={"train": config.train.model_copy(update=rates)}) if rates else config


def _let_overrides_win(settings: dict[str, Any], overridden: Collection[str]) -> None:
    """Take out of the file what another value on the command line would leave without effect.

    The length of training where the other kind of length is given; what belongs to other `quantization.bits`.
    """
    train = settings.get("train")
    for name, other in (("max_steps", "num_train_epochs"), ("num_train_epochs", "max_steps")):
        if f"train.{name}" in overridden and f"train.{other}" not in overridden and isinstance(train, dict):
            settings["train"] = train = {key: value for key, value in train.items() if key != other}
    held = settings.get("quantization")
    if "quantization.bits" in overridden and isinstance(held, dict) and held.get("bits") != 4:
        useless = ("quant_type", "double_quant", *(() if held.get("bits") else ("towers",)))
        settings["quantization"] = {
            key: value for key, value in held.items() if key not in useless or f"quantization.{key}" in overridden
        }


def dump_run_config(config: RunConfig) -> str:
    """Return the settings as a run file, defaults written out; loading it gives an equal config."""
    sections: dict[str, dict[str, Any]] = config.model_dump()
    arguments = sections["train"].pop("arguments")
    sections["train"].update(arguments)
    return dump_yaml(_with_text_paths(sections))


def _with_arguments(train: Mapping[str, Any], *, run_dir: Path, problems: list[Problem]) -> dict[str, Any]:
    """Return the section with the `TrainingArguments` settings gathered under `arguments`, their types checked."""
    own = own_names("train")
    arguments = {name: value for name, value in train.items() if name not in own}
    for name, value in arguments.items():
        problem = argument_problem(name, value, base_dir=run_dir)
        if problem is not None:
            problems.append(problem)
    return {**{name: value for name, value in train.items() if name in own}, "arguments": arguments}


def _validated(name: str, content: Mapping[str, Any], *, problems: list[Problem]) -> Section | None:
    """Return a section as its model, or None after adding to `problems` what is wrong with its values."""
    try:
        return SECTIONS[name].model_validate(content)
    except ValidationError as error:
        first_by_place = {_place(details, content): details for details in reversed(error.errors(include_url=False))}
        problems += [
            _type_problem(name, place, details, content) for place, details in reversed(first_by_place.items())
        ]
        return None


def _place(details: ErrorDetails, content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return where in a section the value that is wrong stands: its field, and a mapping's own."""
    field, *inner = map(str, details["loc"])
    value = content.get(field)
    is_within = bool(inner) and isinstance(value, dict) and (inner[0] in value or details["type"] == "missing")
    return (field, inner[0]) if is_within else (field,)


def _type_problem(section: str, place: Sequence[str], details: ErrorDetails, content: Mapping[str, Any]) -> Problem:
    """Return a validation error in the words of the run file."""
    field, key = place[0], ".".join((section, *place))
    holder = content if len(place) == 1 else content[field]
    if place[-1] not in holder:
        return Problem(key=key, what="is required, and missing", fix=f"write it beneath `{key.rpartition('.')[0]}:`")
    given = holder[place[-1]]
    value = shown_value(given)
    words = _FIELD_WORDS.get(field) or _TYPE_WORDS.get(details["type"], details["msg"])
    if details["type"] in NEW_TOKEN_ERRORS:
        words = details["msg"]
    if section == "adapters" and details["type"] == "model_type":
        words = "must be a word (lora, full, frozen ...) or a mapping of settings"
    what = words.format_map(details.get("ctx", {}))
    fix, mapping = None, _mapping_of(section, field)
    if details["type"] == "literal_error" and isinstance(given, str):
        fix = did_you_mean(given, _words_of(section, field))
    elif mapping is not None and details["type"] in ("extra_forbidden", "model_type"):
        names = list(mapping.model_fields)
        called = {"adapters": "an adapter", "new_tokens": "a new token"}
        noun = called.get(section) or called.get(field, f"{section}.{field}")
        fix = did_you_mean(place[-1], names) or f"the settings of {noun} are {', '.join(names)}"
    return Problem(key=key, value=value, what=what, fix=fix)


def _mapping_of(section: str, field: str) -> type[Section] | None:
    """Return what a setting is made of that is a mapping of settings itself, or a list of such, or None."""
    if (section, field) == ("model", "new_tokens"):
        return NewToken
    annotation = SECTIONS[section].model_fields[field].annotation
    kinds = [own for own in (annotation, *get_args(annotation)) if isinstance(own, type) and issubclass(own, Section)]
    return kinds[0] if kinds else None


def _words_of(section: str, field: str) -> list[str]:
    """Return the words that a setting may be; of a mapping, its types."""
    mapping = _mapping_of(section, field)
    annotation = SECTIONS[section].model_fields[field].annotation
    if mapping is not None:
        return list(get_args(mapping.model_fields["type"].annotation))
    return [choice for choice in get_args(annotation) if isinstance(choice, str)]


def _with_text_paths(value: Any) -> Any:
    """Return nested mappings and lists with every path as text."""
    if isinstance(value, dict):
        return {key: _with_text_paths(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_with_text_paths(member) for member in value]
    return str(value) if isinstance(value, Path) else value
