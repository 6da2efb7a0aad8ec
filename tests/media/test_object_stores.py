"""Files of stores by address, from servers on this machine: what comes, and what is said of what
does not."""

import io
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from smolvlm.media.object_stores import (
    StoreError,
    copy_from_store,
    is_store_address,
    matching_in_store,
    version_in_store,
)
from tests.stores import STORES, Store, store

BIG = bytes(range(256)) * 40_000
FILES = {"a/rows.jsonl": b"{}\n", "a/b/p.png": b"png", "a/b/q.png": BIG, "none.txt": b""}


@pytest.fixture(params=STORES)
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with store(request.param, monkeypatch) as found:
        found.put(FILES)
        yield found


def copied(url: str, *, max_bytes: int = 1 << 30) -> bytes:
    sink = io.BytesIO()
    sizes = list(copy_from_store(url, sink, max_bytes=max_bytes))
    assert sizes == sorted(sizes)
    assert sizes[-1] == len(sink.getvalue())
    return sink.getvalue()


@pytest.mark.parametrize("name", ["a/rows.jsonl", "a/b/q.png"])
def test_bytes_come_as_they_lie_there(served: Store, name: str) -> None:
    assert copied(f"{served.root}/{name}") == FILES[name]


def test_what_is_not_there_or_too_large_is_refused(served: Store) -> None:
    for name, what in {"a/other.png": "nothing is there", "none.txt": "the file is empty"}.items():
        with pytest.raises(StoreError, match=what) as caught:
            copied(f"{served.root}/{name}")
        assert not caught.value.may_pass
    with pytest.raises(StoreError, match="larger than the limit of 1,000 bytes"):
        copied(f"{served.root}/a/b/q.png", max_bytes=1000)


def test_a_pattern_is_its_files_in_order(served: Store) -> None:
    root = served.root
    assert matching_in_store(f"{root}/a/b/*.png") == [f"{root}/a/b/p.png", f"{root}/a/b/q.png"]
    assert matching_in_store(f"{root}/a/*.jsonl") == [f"{root}/a/rows.jsonl"]
    assert matching_in_store(f"{root}/**/p.png") == [f"{root}/a/b/p.png"]
    assert matching_in_store(f"{root}/a/*.tar") == []
    assert matching_in_store(f"{root}/not/asked.png") == [f"{root}/not/asked.png"]


def test_a_version_is_another_once_the_bytes_are(served: Store) -> None:
    url = f"{served.root}/a/rows.jsonl"
    first = version_in_store(url)
    assert version_in_store(url) == first
    served.put({**FILES, "a/rows.jsonl": b"[]\n"})
    assert version_in_store(url) != first


def test_a_store_that_does_not_answer_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with store("hf", monkeypatch) as gone:
        gone.put(FILES)
    with pytest.raises(StoreError, match="Connection refused"):
        version_in_store(f"{gone.root}/a/rows.jsonl")


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (TimeoutError("no answer"), True),
        (ConnectionResetError("by peer"), True),
        (EOFError("in the middle"), True),
        (FileNotFoundError("a.png"), False),
        (PermissionError("Forbidden"), False),
        (LookupError("no credentials"), False),
    ],
)
def test_another_try_is_made_where_it_may_help(
    error: Exception, may_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def info(_: str) -> dict[str, object]:
        raise error

    opened = SimpleNamespace(info=info), "a/b.png"
    monkeypatch.setattr("smolvlm.media.object_stores._opened", lambda _: opened)
    with pytest.raises(StoreError) as caught:
        copied("s3://a/b.png")
    assert caught.value.may_pass == may_pass


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(StoreError, match="`abfs://` needs the package adlfs") as caught:
        copied("abfs://box/a.png")
    assert caught.value.fix == "pip install adlfs"


@pytest.mark.parametrize(
    "text", ["s3://a/b", "S3://a/b", "gs://a", "hf://datasets/a/b/c", "az://a/b"]
)
def test_an_address_is_known_by_its_protocol(text: str) -> None:
    assert is_store_address(text)


@pytest.mark.parametrize(
    "text", ["https://a/b", "s3:/a", "a/s3://b", "file://a", "memory://a", "ssh://a"]
)
def test_nothing_else_is_one(text: str) -> None:
    assert not is_store_address(text)
