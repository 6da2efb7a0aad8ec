"""Counts and shares as people say them."""

import pytest

from smolvlm.pages.token_text import percent, plural, without_home


def test_numbers_with_their_nouns() -> None:
    assert [plural(count, "tile") for count in (0, 1, 1137)] == ["0 tiles", "1 tile", "1,137 tiles"]
    assert [percent(0.1234), percent(1, digits=0)] == ["12.3 %", "100 %"]


@pytest.mark.parametrize(
    ("text", "shortened"),
    [
        ("/home/me/a.jsonl", "~/a.jsonl"),
        ("path: '/home/me'\n/home/me/b", "path: '~'\n~/b"),
        ("file:/home/me/a", "file:~/a"),
        ("/home/me2/a /home/me.old/a /mnt/home/me/a", "/home/me2/a /home/me.old/a /mnt/home/me/a"),
    ],
)
def test_the_home_folder_is_a_tilde(
    text: str, shortened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert without_home(text) == shortened


def test_where_home_is_the_root_nothing_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert without_home("/a/b") == "/a/b"
