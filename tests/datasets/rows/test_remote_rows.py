"""Rows and their pictures that lie in a store: fetched, kept by version, and as good as files."""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.data import DataConfig
from smolvlm.datasets.builder import measure_mixture, open_mixture
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.measured import MeasuredSet
from smolvlm.datasets.rows import remote_rows
from smolvlm.datasets.rows.remote_rows import fetched_rows
from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.images import open_rgb
from smolvlm.media.kept_files import MEDIA, make_room, media_dir
from smolvlm.notices import _SAID
from smolvlm.records import ImageRef
from tests.stores import STORES, Store, forget_listings, store
from tests.web_server import web_server

ROWS = [
    {"image": "pictures/coffee.png", "question": "What is it?", "answer": "coffee"},
    {"image": "pictures/horse.png", "question": "What is it?", "answer": "a horse"},
]


@dataclass(frozen=True)
class Shelf:
    """A data set in a store, and the same on this disk."""

    store: Store
    files: Mapping[str, bytes]
    folder: Path


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def files(photos: dict[str, Path]) -> dict[str, bytes]:
    return {
        "set/rows.jsonl": lines(ROWS),
        "set/more-0.jsonl": lines(ROWS[:1]),
        "set/more-1.jsonl": lines(ROWS[1:]),
        **{f"set/pictures/{name}.png": photos[name].read_bytes() for name in ("coffee", "horse")},
        "other/secret.png": photos["horse"].read_bytes(),
    }


@pytest.fixture(params=STORES)
def shelf(
    request: pytest.FixtureRequest,
    files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Shelf]:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "cache"))
    for name, data in files.items():
        path = tmp_path / "local" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with store(request.param, monkeypatch) as served:
        served.put(files)
        yield Shelf(served, files, tmp_path / "local")


def measured(prompt: PromptSettings, **entry: Any) -> MeasuredSet:
    data = DataConfig(mixture=[entry])
    return measure_mixture(data.mixture, data, prompt=prompt)


def pixels(found: MeasuredSet) -> list[bytes]:
    media = [medium for row in found.conversations for medium in row.media]
    return [open_rgb(medium).tobytes() for medium in media if isinstance(medium, ImageRef)]


@pytest.mark.parametrize("name", ["set/rows.jsonl", "set/more-{0..1}.jsonl", "set/more-*.jsonl"])
def test_rows_of_a_store_are_those_of_the_files(
    shelf: Shelf, prompt: PromptSettings, name: str
) -> None:
    there = measured(prompt, json_path=f"{shelf.store.root}/{name}")
    here = measured(prompt, json_path=str(shelf.folder / name))
    for column in ("num_tokens", "num_tiles", "prefix_group"):
        ours, theirs = (getattr(found.lengths, column).tolist() for found in (there, here))
        assert ours == theirs
    assert pixels(there) == pixels(here)
    assert [row.turns[1] for row in there.conversations] == [
        row.turns[1] for row in here.conversations
    ]
    label = there.conversations.where(0)
    assert label.startswith(f"{shelf.store.root}/set/")
    assert label.endswith(":1")


def test_pictures_may_lie_in_another_folder_of_a_store(
    shelf: Shelf, prompt: PromptSettings, tmp_path: Path
) -> None:
    rows = [{**row, "image": str(row["image"]).partition("/")[2]} for row in ROWS]
    (tmp_path / "rows.jsonl").write_bytes(lines(rows))
    media = f"{shelf.store.root}/set/pictures/"
    there = measured(prompt, json_path=str(tmp_path / "rows.jsonl"), path=media)
    assert pixels(there) == pixels(measured(prompt, json_path=str(shelf.folder / "set/rows.jsonl")))


def test_nothing_is_fetched_twice_until_it_changes(shelf: Shelf, prompt: PromptSettings) -> None:
    url = f"{shelf.store.root}/set/rows.jsonl"
    first = measured(prompt, json_path=url)
    again = measured(prompt, json_path=url)
    assert len(first.conversations) == len(again.conversations) == 2
    if shelf.store.num_asked("rows.jsonl") >= 0:
        assert shelf.store.num_asked("rows.jsonl") == 1
        assert shelf.store.num_asked("coffee.png") == 1
    shelf.store.put({**shelf.files, "set/rows.jsonl": lines(ROWS * 2)})
    assert len(measured(prompt, json_path=url).conversations) == 4


def test_of_several_that_want_a_file_one_fetches_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    fetch_rows = remote_rows.fetch_rows

    def counted(url: str, file: Path) -> None:
        if not file.exists():
            fetched.append(url)
        fetch_rows(url, file)

    monkeypatch.setattr(remote_rows, "fetch_rows", counted)
    url = f"{shelf.store.root}/set/rows.jsonl"
    threads = [threading.Thread(target=fetched_rows, args=(url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [url]


@pytest.mark.parametrize(
    "image", ["../other/secret.png", "/etc/secret.png", "a/../../other/secret.png"]
)
def test_rows_name_nothing_outside_their_folder(
    shelf: Shelf, prompt: PromptSettings, image: str
) -> None:
    shelf.store.put({**shelf.files, "set/rows.jsonl": lines([{**ROWS[0], "image": image}])})
    with pytest.raises(SampleError, match="lies outside the folder of media"):
        measured(prompt, json_path=f"{shelf.store.root}/set/rows.jsonl")


def test_addresses_inside_the_folder_are_its_own_and_others_need_trust(
    shelf: Shelf, prompt: PromptSettings
) -> None:
    root = shelf.store.root
    url = f"{root}/set/rows.jsonl"
    inside = [{**ROWS[0], "image": f"{root}/set/pictures/coffee.png"}]
    shelf.store.put({**shelf.files, "set/rows.jsonl": lines(inside)})
    assert len(measured(prompt, json_path=url).conversations) == 1
    for image in (f"{root}/other/secret.png", f"{root}/set/../other/secret.png"):
        shelf.store.put({**shelf.files, "set/rows.jsonl": lines([{**ROWS[0], "image": image}])})
        with pytest.raises(SampleError, match=r"is an address(.|\n)*data.allow_urls"):
            measured(prompt, json_path=url)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("set/none.jsonl", "cannot be read: nothing is there"),
        ("set/*.tar", "no file there has such a name"),
        ("set/pictures/coffee.png", "no known format of rows"),
        ("set/{0..1.jsonl", "no pattern of files"),
        ("set/{rows.jsonl,pictures/coffee.png}", "no known format of rows"),
    ],
)
def test_what_is_not_there_is_a_problem_of_the_mixture(
    shelf: Shelf, prompt: PromptSettings, name: str, what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        measured(prompt, json_path=f"{shelf.store.root}/{name}")


def test_a_copy_is_read_where_the_store_does_not_answer(
    files: dict[str, bytes],
    prompt: PromptSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "cache"))
    with store("hf", monkeypatch) as served:
        served.put(files)
        url = f"{served.root}/set/rows.jsonl"
        measured(prompt, json_path=url)
    _SAID.clear()
    forget_listings()
    assert len(measured(prompt, json_path=url).conversations) == 2
    assert f"{url} cannot be asked for (" in caplog.text
    with pytest.raises(ConfigError, match=r"more-0.jsonl cannot be read: .*Connection refused"):
        measured(prompt, json_path=f"{served.root}/set/more-0.jsonl")


def test_rows_of_a_web_server_are_fetched_again_once_they_changed(
    files: dict[str, bytes],
    prompt: PromptSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path))
    _SAID.clear()
    with web_server() as server:
        for name, data in files.items():
            server.serve(f"/{name}", data)
        url = f"{server.address}/set/rows.jsonl"
        found = [measured(prompt, json_path=url) for _ in range(2)]
        assert [len(rows.conversations) for rows in found] == [2, 2]
        copies = list((tmp_path / "remote-rows").glob("*/*/rows.jsonl"))
        assert len(copies) == 1
        server.serve("/set/rows.jsonl", lines(ROWS * 2))
        assert len(measured(prompt, json_path=url).conversations) == 4
        assert caplog.text == ""
        with pytest.raises(ConfigError, match=r"status 404"):
            measured(prompt, json_path=f"{server.address}/set/none.jsonl")
        with pytest.raises(ConfigError, match="of a web server braces alone name several files"):
            measured(prompt, json_path=f"{server.address}/set/*.jsonl")
    assert len(measured(prompt, json_path=url).conversations) == 4, "the newest copy"
    assert f"{url} cannot be asked for (no connection" in caplog.text


def test_names_that_an_address_would_cut_are_whole(
    files: dict[str, bytes], prompt: PromptSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path))
    row = {**ROWS[0], "image": "a#1 b?.png"}
    with web_server() as server:
        server.serve("/set/rows.jsonl", lines([row]))
        server.serve("/set/a%231%20b%3F.png", files["set/pictures/coffee.png"])
        found = measured(prompt, json_path=f"{server.address}/set/rows.jsonl")
        assert len(pixels(found)) == 1


def test_pictures_that_were_removed_are_fetched_again(shelf: Shelf, prompt: PromptSettings) -> None:
    found = measured(prompt, json_path=f"{shelf.store.root}/set/rows.jsonl")
    for path in media_dir().glob("*/*"):
        os.utime(path, (0, 0))  # unused for long
    assert make_room(media_dir(), 1, MEDIA) == 2
    here = measured(prompt, json_path=str(shelf.folder / "set/rows.jsonl"))
    assert pixels(found) == pixels(here)


def test_sources_of_a_store_survive_a_process(shelf: Shelf, prompt: PromptSettings) -> None:
    """Open sources are handed to the processes that measure."""
    import pickle

    data = DataConfig(mixture=[{"json_path": f"{shelf.store.root}/set/rows.jsonl"}])
    (source,) = pickle.loads(pickle.dumps(open_mixture(data.mixture, data)))
    assert [row.turns[1].blocks for row in source.all_rows()] == [("coffee",), ("a horse",)]
