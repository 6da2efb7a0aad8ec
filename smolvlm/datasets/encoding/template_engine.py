"""What runs a chat template's Jinja, and a program that does so within limits.

In: a template, messages, variables. Out: what it writes. As a module it runs here; as a program
(`template_process.py` starts it) it reads one request a line and answers each by a line, and the
system ends it where a template takes more time or memory than any real one. Jinja's sandbox keeps a
template from files and other objects; what it may compute is without end: nested loops, recursive
macros, `'a' * 10**10`, `'%1000000000d'`, a text that is doubled forty times. Those are too many to
be found one by one, so the limits are the system's. This file imports the standard library and
Jinja alone: the program is started for each process that needs it.
"""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE_BYTES = 1 << 30
"""Memory of the process that renders, all its own included."""
MAX_WRITTEN_CHARACTERS = 1 << 22
"""Of what a template writes for the shape of one conversation: above a million tokens."""


class _GenerationTag(Extension):
    """`{% generation %}`, which marks what the assistant says: rendered as what it encloses."""

    tags = {"generation"}  # noqa: RUF012 - the attribute is Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def write(source: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
    """Return what a template writes; an exception of any kind is the template's.

    Args:
        source: the template.
        messages: role and content of each.
        variables: what else it may name.
    """
    return _compiled(source).render(messages=messages, **variables)


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


def _answer(request: Mapping[str, Any]) -> dict[str, str]:
    try:
        text = write(request["source"], request["messages"], request["variables"])
    except MemoryError:
        return {"error": f"it takes more than {MAX_TEMPLATE_BYTES >> 30} GiB of memory"}
    except Exception as error:  # the template is code of somebody else, and may raise anything
        return {"error": str(error)[:1000] or type(error).__name__}
    if len(text) > MAX_WRITTEN_CHARACTERS:
        return {"error": f"it writes more than {MAX_WRITTEN_CHARACTERS:,} characters"}
    return {"text": text}


def _limit(name: str, soft: int) -> None:
    """Lower a limit of this process; no system but Unix has any."""
    try:
        import resource
    except ImportError:
        return
    number = getattr(resource, name)
    hard = resource.getrlimit(number)[1]
    soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    with contextlib.suppress(ValueError, OSError):  # what a system does not limit
        resource.setrlimit(number, (soft, hard))


def _serve() -> None:
    import time

    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_AS", MAX_TEMPLATE_BYTES)
    for line in sys.stdin.buffer:
        try:
            request = json.loads(line)
            _limit("RLIMIT_CPU", int(time.process_time()) + 1 + request["cpu_s"])
            answer = json.dumps(_answer(request))
        except MemoryError:
            answer = json.dumps({"error": "it takes all memory"})
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
