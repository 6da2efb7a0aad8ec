"""A chat template's text as a function: the same Jinja that transformers runs, and nothing more.

A template comes with a checkpoint and is code of somebody else, so it runs in Jinja's sandbox, as
it does in transformers (`transformers.utils.chat_template_utils`). Importing that would bring torch
into processes that only measure rows, so the few functions a template may call stand here too; a
test holds both renderings equal.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from smolvlm.errors import ConfigError

FIX = "mend the template, or delete it: without one the SmolVLM family's own is used"


class _GenerationTag(Extension):
    """`{% generation %}`, which marks what the assistant says: rendered as what it encloses."""

    tags = {"generation"}  # noqa: RUF012 - the attribute is Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(source: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
    """Return what a template writes.

    Args:
        source: the template.
        messages: role and content of each.
        variables: what else it may name: `add_generation_prompt`, the special tokens.

    Raises:
        ConfigError: the template is no Jinja, or refuses these messages.
    """
    try:
        return _compiled(source).render(messages=messages, **variables)
    except (TemplateError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise ConfigError(f"its chat template fails: {error}", fix=FIX) from error


@lru_cache(maxsize=4)
def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment.from_string(source)


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(layout: str) -> str:
    return datetime.now().strftime(layout)
