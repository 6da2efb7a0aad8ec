"""A text is said, named as not read, or its row is refused, wherever in a row it stands and however
deep: in every format of rows, and in every kind of file."""

import copy
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smolvlm.datasets.rows import keys
from smolvlm.datasets.rows.depth import MAX_DEPTH
from smolvlm.datasets.rows.formats import to_conversation
from smolvlm.datasets.rows.memory import keep_rows
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.readers.tar_media import MediaMember, with_media
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.datasets.rows.tables import open_table
from smolvlm.errors import ConfigError, SampleError
from smolvlm.records import Conversation, ImageRef, VideoRef
from tests.grids import as_grid

TEXT = "what of zqTAGqz is it?"
PNG = b"\x89PNG\r\n\x1a\n0000"
ASKED = {"role": "user", "content": "hi"}


def answered(*blocks: object) -> dict[str, Any]:
    """Return a row whose user shows blocks."""
    said = [*blocks, {"type": "text", "text": "t"}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "x"}]}
    return {"messages": [{"role": "user", "content": said}, answer]}


def asked(**media: object) -> dict[str, Any]:
    return {"question": "q", "answer": "a", **media}


ROWS: dict[str, dict[str, Any]] = {
    "text": asked(),
    "name": asked(image="a.png"),
    "names": asked(images=["a.png", "b.png"]),
    "object": asked(image={"path": "a.png"}),
    "bytes": asked(images=[{"bytes": PNG, "path": "a.png"}]),
    "base64": asked(image={"base64": "iVBORw0KGgo="}),
    "address": asked(image={"image_url": {"url": "a.png"}}),
    "clip": asked(video="a.mp4", start_s=1, end_s=2),
    "clip object": asked(video={"path": "a.mp4", "start_s": 1}),
    "frames": asked(video=["a.png", "b.png"]),
    "frames object": asked(video={"frames": ["a.png"], "fps": 1}),
    "answers": {"question": "q", "answers": ["a", "b"]},
    "SQuAD": {"question": "q", "answers": {"text": ["a"], "answer_start": [1]}},
    "VQA": {"question": "q", "answers": [{"answer": "a", "answer_id": 1}]},
    "instruction": {"instruction": "q", "input": "i", "output": "a", "history": [["q", "a"]]},
    "llava": {"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "a"}]},
    "messages": {"messages": [ASKED, {"role": "assistant", "content": "a"}], "images": ["a.png"]},
    "place": answered({"type": "image"}) | {"images": ["a.png"]},
    "block": answered({"type": "image", "path": "a.png"}),
    "block of bytes": answered({"type": "image", "bytes": "iVBORw0KGgo=", "path": "a.png"}),
    "block of an address": answered({"type": "image_url", "image_url": {"url": "a.png"}}),
    "block of a clip": answered({"type": "video", "video": ["a.png"], "fps": 1}),
    "pairs": {"texts": [{"user": "u", "assistant": "a"}], "image": "a.png"},
    "preference": {"prompt": "p", "chosen": "c", "rejected": "r", "image": "a.png"},
    "shard in columns": {"__key__": "k", "json": asked(), "png": PNG, "txt": None},
}
KEYS = sorted(
    {
        *(*keys.COLUMN_NAMES, *keys.SYSTEM_KEYS, *keys.WEIGHT_KEYS, *keys.RATE_KEYS),
        *(*keys.FILE_KEYS, *keys.PICTURE_KEYS, *keys.CLIP_KEYS, *keys.CAPTION_KEYS),
        *(*keys.INDEX_KEYS, *keys.KNOWN_IN_BLOCKS, *keys.KNOWN_IN_TURNS, *keys.KNOWN_IN_ANSWERS),
        *("base64", "data", "b64", "b64_json", "file", "source", "url", "filename", "mime_type"),
        *("media_type", "format", "image_1", "png", "mp4", "duration", "json", "unheard_of"),
    }
)
WRAPPED: tuple[Callable[[object], object], ...] = (
    lambda text: text,
    lambda text: [text],
    lambda text: {"a": text},
    lambda text: {"text": text},
    lambda text: [{"a": [[text]]}],
    lambda text: {"path": "a.png", "a": text},
    lambda text: {"path": "a.png", "bytes": {"a": text}},
    lambda text: {"path": {"a": text}},
)
SPEC = SourceSpec(name="s", path=Path("/r"), label="r", format="json", media_root=Path("/pictures"))


def holders(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict | list) else []
    return own + [holder for each in inner for holder in holders(each)]


def with_the_text(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the row with the text in each place of it, under each key, wrapped in each way."""
    for number, holder in enumerate(holders(row)):
        places = range(len(holder) + 1) if isinstance(holder, list) else {*holder, *KEYS}
        for place in places:
            for wrapped in WRAPPED:
                changed = copy.deepcopy(row)
                own = holders(changed)[number]
                if place == len(own) and isinstance(own, list):
                    own.append(wrapped(TEXT))
                else:
                    own[place] = wrapped(TEXT)
                yield changed


def keys_to_the_text(value: Any) -> list[str] | None:
    """Return the keys that lead to the text, the row's own first."""
    if value == TEXT:
        return []
    pairs = value.items() if isinstance(value, dict) else []
    if isinstance(value, list):
        pairs = [("", member) for member in value]
    for key, member in pairs:
        if (rest := keys_to_the_text(member)) is not None:
            return [key, *rest] if key else rest
    return None


def is_said(conversation: Conversation) -> bool:
    shown: list[object] = [*conversation.references]
    for turn in (*conversation.turns, *conversation.rejected):
        for block in turn.blocks:
            shown += [block] if isinstance(block, str) else [block.path, block.data]
            shown += [frame.path for frame in getattr(block, "frames", ())]
    return any("zqTAGqz" in str(each) for each in shown)


def is_lost(row: dict[str, Any], conversation: Conversation) -> bool:
    if is_said(conversation) or conversation.doubts:
        return False
    path = keys_to_the_text(row)
    if path is None:  # a wrapped text took the place of all of it
        return True
    named = {key.rpartition(".")[2].rstrip("[]") for key in conversation.unread_keys}
    is_name_of_bytes = path[-1] in ("path", "image", "url") and "bytes" in json.dumps(
        row, default=str
    )
    return named.isdisjoint(path) and not is_name_of_bytes


MEMBERS = {
    "no member": [],
    "a picture": [MediaMember(name="k.png", ending="png", ref=ImageRef(path=Path("/s.tar")))],
    "pictures": [
        MediaMember(name=f"k.{place}.png", ending=f"{place}.png", ref=ImageRef(path=Path("/s.tar")))
        for place in "ab"
    ],
    "a clip": [MediaMember(name="k.mp4", ending="mp4", ref=VideoRef(path=Path("/s.tar")))],
}


def read(row: dict[str, Any], members: str | None = None) -> Conversation | SampleError:
    """Return what comes of a row, in a shard with members or in a file of rows."""
    try:
        row = copy.deepcopy(row)
        if members is not None:
            row = with_media(row, MEMBERS[members], media_root=Path("/pictures"), columns={})
        return to_conversation(row, spec=SPEC, where="r:1")
    except SampleError as error:
        return error


@pytest.mark.parametrize("name", ROWS)
def test_no_text_of_a_row_is_lost(name: str) -> None:
    num_accepted = 0
    for row in with_the_text(ROWS[name]):
        come_of_it = read(row)
        if isinstance(come_of_it, SampleError):
            assert come_of_it.fix, str(come_of_it)
            continue
        num_accepted += 1
        assert not is_lost(row, come_of_it), row
    assert num_accepted > 20


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("text", "a picture"),
        ("messages", "pictures"),
        *(
            as_grid((name, members))
            for name in ("names", "object", "clip object", "llava", "place", "block")
            for members in MEMBERS
        ),
        *(as_grid(("text", members)) for members in MEMBERS if members != "a picture"),
    ],
)
def test_no_text_of_a_shards_row_is_lost(name: str, members: str) -> None:
    for row in with_the_text(ROWS[name]):
        come_of_it = read(row, members)
        if isinstance(come_of_it, SampleError):
            assert come_of_it.fix, str(come_of_it)
        else:
            assert not is_lost(row, come_of_it), row


@pytest.mark.parametrize(
    "value", [[{"a": TEXT}], {"caption": TEXT}, [[[]], [TEXT * 0, {"n": 5}]], 7, {"bytes": TEXT}]
)
@pytest.mark.parametrize("key", ["image", "images"])
def test_a_shards_key_that_names_no_member_is_refused(key: str, value: object) -> None:
    with pytest.raises(SampleError) as caught:
        with_media(asked(**{key: value}), MEMBERS["a picture"], media_root=Path("/x"), columns={})
    assert f"`{key}` names none of its members" in str(caught.value) or "lists" in str(caught.value)


@pytest.mark.parametrize("value", [None, [], {}, [None], [[]], {"bytes": None, "path": None}])
def test_a_shards_key_that_says_nothing_gives_way(value: object) -> None:
    row = with_media(asked(images=value), MEMBERS["a picture"], media_root=Path("/x"), columns={})
    assert row == asked(image=MEMBERS["a picture"][0].ref)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (asked(image={"path": "a.png", "bytes": [1]}), "a picture's `bytes` are a list"),
        (asked(image={"bytes": PNG, "path": {"a": 1}}), "bytes, and a `path` that is no text"),
        (asked(video={"path": "a.mp4", "frames": 8}), "a clip's `frames` are a number, not a list"),
        (
            answered({"type": "image", "bytes": "iVBORw0KGgo=", "path": ["a.png"]}),
            "both `bytes` and `path`, which is no file's name",
        ),
        (
            {"__key__": "k", "json": asked(txt="one"), "txt": "two"},
            "`json` and a column beside it both give `txt`",
        ),
        (
            {"question": "q", "answers": [{"answer": "a", "text": "b"}]},
            "`answers[].answer` and `answers[].text` both give the answer",
        ),
        (
            {"question": "q", "answers": [{"text": "a", "anwser": "b"}]},
            "unknown key `answers[].anwser`: did you mean `answer`?",
        ),
    ],
)
def test_two_values_in_one_place_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(SampleError) as caught:
        to_conversation(row, spec=SPEC, where="r:1")
    assert message in str(caught.value)
    assert caught.value.fix


def test_what_is_not_read_of_an_answer_is_named() -> None:
    for answers, named in (
        ([{"answer": "a", "answer_confidence": "yes", "answer_id": 1}], ["answer_confidence"]),
        ({"text": ["a"], "answer_start": [3]}, ["answer_start"]),
    ):
        row = {"question": "q", "answers": answers}
        conversation = to_conversation(row, spec=SPEC, where="r:1")
        assert conversation.references == ("a",)
        assert [key.rpartition(".")[2] for key in conversation.unread_keys][:1] == named


def test_a_column_of_nulls_takes_nothing_from_a_shards_json() -> None:
    row = {"__key__": "k", "json": asked(image="a.png"), "image": None, "answer": None}
    conversation = to_conversation(row, spec=SPEC, where="r:1")
    assert [block.path for block in conversation.media if isinstance(block, ImageRef)] == [
        Path("/pictures/a.png")
    ]


# How deep


def nested(depth: int, opened: str) -> str:
    """Return JSON text of lists or objects in each other, the text innermost."""
    opening, closing = {"[": ("[", "]"), "{": ('{"a": ', "}")}[opened]
    return opening * depth + json.dumps(TEXT) + closing * depth


def write_row(path: Path, text: str) -> None:
    if path.suffix == ".jsonl":
        path.write_text(text)
    elif path.suffix == ".json":
        path.write_text(f"[{text}]")
    else:
        with tarfile.open(path, "w") as shard:
            for name, data in (("k.json", text.encode()), ("k.png", PNG)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))


def read_file(path: Path) -> Conversation | SampleError:
    (spec,) = load_mixture([{"path": path.name}], base_dir=path.parent)
    try:
        return to_conversation(open_table(spec)[0], spec=spec, where="r:1")
    except SampleError as error:
        return error


@pytest.mark.parametrize("opened", "[{")
@pytest.mark.parametrize("ending", ["jsonl", "json", "tar"])
def test_what_is_nested_is_refused_or_named_at_any_depth(
    tmp_path: Path, ending: str, opened: str
) -> None:
    for key in ("unheard_of", "image", "images", "img", "video", "start_s", "history", "texts"):
        for depth in (1, 5, 35, MAX_DEPTH - 2, MAX_DEPTH + 1, 120, 330, 900, 5000):
            path = tmp_path / f"{key}{depth}.{ending}"
            write_row(path, f'{{"question": "q", "answer": "a", "{key}": {nested(depth, opened)}}}')
            come_of_it = read_file(path)
            if isinstance(come_of_it, SampleError):
                assert come_of_it.fix, str(come_of_it)
                is_of_depth = "nested too deeply to read" in come_of_it.what
                assert is_of_depth == (depth >= MAX_DEPTH), (key, depth, str(come_of_it))
            else:
                assert depth < MAX_DEPTH
                assert is_said(come_of_it) or come_of_it.unread_keys == (key,)


def test_columns_are_as_deep_as_arrow_lets_them_be(tmp_path: Path) -> None:
    for depth in (5, 35, 60, 120):
        column: pa.Array = pa.array([TEXT])
        for _ in range(depth):
            column = pa.StructArray.from_arrays([column], ["a"])
        for key in ("unheard_of", "images", "answers"):
            path = tmp_path / f"{key}{depth}.parquet"
            row = {"question": ["q"], "answer": ["a"], key: column}
            pq.write_table(pa.table(row), path)
            come_of_it = read_file(path)
            if isinstance(come_of_it, SampleError):
                assert come_of_it.fix, str(come_of_it)
                assert key != "unheard_of" or depth > MAX_DEPTH
            else:
                assert come_of_it.unread_keys == (key,)


def test_rows_of_a_program_are_no_deeper() -> None:
    value: Any = TEXT
    for _ in range(3000):
        value = [value]
    with pytest.raises(ConfigError, match="memory:2: nested too deeply to read"):
        keep_rows([asked(), asked(unheard_of=value)])
