"""What gradio is handed: text as text, files, notes for eyes and for screen readers."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from smolvlm.demo.page import _gradio, _plain, messages, note_html, without_proxy
from smolvlm.demo.talk import Exchange
from smolvlm.errors import ConfigError

EVIL = "<img src=http://example.org/a.png> & **bold**"


def test_a_side_is_shown_its_own_answers() -> None:
    first = Exchange(question="What?", files=(Path("/t/a.png"),), answers=("one", "two"))
    second = Exchange(question="And?", files=(), answers=("three", ""))
    assert messages([first, second], 1) == [
        {"role": "user", "content": {"path": "/t/a.png", "alt_text": "a.png"}},
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "…"},
    ]


def test_nothing_that_is_said_is_obeyed() -> None:
    said = messages([Exchange(question=EVIL, files=(), answers=(EVIL,))], 0)
    assert [message["content"] for message in said] == [
        "&lt;img src=http://example.org/a.png&gt; &amp; **bold**"
    ] * 2
    assert "<img" not in note_html(EVIL, is_error=True)
    assert _plain("a_<b>*") == "a&#95;&#60;b&#62;&#42;"


def test_an_error_is_an_alert() -> None:
    assert 'role="alert"' in note_html("a", is_error=True)
    assert 'role="status"' in note_html("a")


def test_gradio_reaches_its_own_server_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org")
    names = without_proxy("192.168.0.2")
    assert names["no_proxy"] == names["NO_PROXY"] == "example.org,127.0.0.1,localhost,192.168.0.2"


def test_gradio_that_is_missing_or_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"gradio cannot be imported(.|\n)*smolvlm\[demo\]"):
        _gradio()
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="5.49.1"))
    with pytest.raises(ConfigError, match=r"gradio 5\.49\.1 is too old"):
        _gradio()
