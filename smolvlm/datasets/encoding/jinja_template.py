"""A chat template's text as a function: the same Jinja that transformers runs, and nothing more.

A template comes with a checkpoint and is code of somebody else. It runs in Jinja's sandbox, as it
does in transformers (`transformers.utils.chat_template_utils`), and in a process whose time and
memory are limited, which costs some 0.1 s once a process; the family's own runs here. Importing
transformers' module would bring torch into processes that only measure rows, so the few functions
that a template may call stand in `template_engine.py`; a test holds both renderings equal.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from smolvlm.datasets.encoding.template_engine import write
from smolvlm.datasets.encoding.template_process import FIX, write_in_process
from smolvlm.errors import ConfigError

__all__ = ["FIX", "RELEASED_TEMPLATE", "render"]

RELEASED_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Of the released SmolVLM checkpoints; what a checkpoint without a template is given."""


def render(source: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
    """Return what a template writes.

    Args:
        source: the template.
        messages: role and content of each.
        variables: what else it may name: `add_generation_prompt`, the special tokens.

    Raises:
        ConfigError: the template is no Jinja, refuses these messages, or takes more time or memory
            than any real one.
    """
    if source != RELEASED_TEMPLATE:
        return write_in_process(source, messages, variables)
    try:
        return write(source, messages, variables)
    except (TemplateError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise ConfigError(f"its chat template fails: {error}", fix=FIX) from error
