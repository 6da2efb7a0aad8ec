"""Templates that never end or take all memory are a sentence, and the next one is rendered."""

import os
from pathlib import Path

import pytest

from smolvlm.datasets.encoding import template_process
from smolvlm.datasets.encoding.jinja_template import RELEASED_TEMPLATE, render
from smolvlm.datasets.encoding.read_template import check_template
from smolvlm.datasets.encoding.split_template import ChatTemplate
from smolvlm.datasets.encoding.template_process import write_in_process
from smolvlm.errors import ConfigError
from tests.chat_templates import RELEASED

MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "Ünï\n{{ x }}"}]}]
DOUBLED = (
    "{% set ns = namespace(a='aaaaaaaa') %}"
    "{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a | length }}"
)
BRANCHING = (
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**10 }}",
        "{% set n = 10**10 %}{{ ('a' * n) | length }}",
        "{{ [0] * 10**10 }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{{ 'a' | center(10**10) }}",
        "{{ 'a'.ljust(10**10) | length }}",
        "{{ ('a' * 10**6) | replace('a', 'a' * 10**6) | length }}",
        "{{ [1] | tojson(indent=10**10) }}",
        DOUBLED,
    ],
)
def test_all_memory_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match=r"more than 1 GiB of memory(.|\n)*fix: mend"):
        render(template, MESSAGES, {})


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = 10**9 %}{{ (10**n) % 7 }}",
        "{{ lipsum(n=10**8) }}",
        BRANCHING,
    ],
)
def test_all_time_is_refused(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "MAX_TEMPLATE_CPU_S", 1)
    with pytest.raises(ConfigError, match="takes more than 1 s to render one conversation"):
        render(template, MESSAGES, {})
    # The process was ended; the next template has another.
    assert render("{{ messages[0].content[0].text }}!", MESSAGES, {}) == "Ünï\n{{ x }}!"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(10**9) %}{% endfor %}", "larger than MAX_RANGE"),
        ("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", "recursion"),
        ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", "recursion"),
        ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "more than 4,194,304 characte"),
        ("{% for", "unexpected 'end of template'"),
        ("{{ raise_exception('no system turn') }}", "no system turn"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_what_fails_is_a_sentence(template: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        render(template, MESSAGES, {})


def test_both_ways_of_rendering_write_the_same() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a\u2003é\ue000"}]}]
    here = render(RELEASED_TEMPLATE, messages, {"add_generation_prompt": True})
    assert write_in_process(RELEASED_TEMPLATE, messages, {"add_generation_prompt": True}) == here


def test_a_template_is_refused_where_it_is_read() -> None:
    source = RELEASED.source + "{{ 'a' * 10**10 if messages | length > 4 }}"
    hostile = ChatTemplate(source=source, special_tokens=RELEASED.special_tokens)
    with pytest.raises(ConfigError, match="more than 1 GiB of memory"):
        check_template(hostile)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_a_renderer_of_its_own(tmp_path: Path) -> None:
    assert render("one", MESSAGES, {}) == "one"
    child = os.fork()
    if child == 0:
        (tmp_path / "wrote").write_text(render("{{ 1 + 1 }}", MESSAGES, {}))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "wrote").read_text() == "2"
    assert render("three", MESSAGES, {}) == "three"
