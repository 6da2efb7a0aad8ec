"""Rows turned into conversations as a source's reader does, for tests of rows."""

from pathlib import Path
from typing import Any

from smolvlm.datasets.rows.formats import to_conversation
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import located
from smolvlm.records import Block, Conversation, ImageRef, Media

ROOT = Path("/pictures")
A, B = ImageRef(path=ROOT / "a.png"), ImageRef(path=ROOT / "b.png")
QA = {"question": "q", "answer": "x"}


def convert(row: Any, *, root: Path = ROOT, **source: Any) -> Conversation:
    """Return a row as a conversation of a source with these settings."""
    path = Path("/rows.jsonl")
    spec = SourceSpec(
        name="s", path=path, label="rows.jsonl", format="jsonl", media_root=root, **source
    )
    with located("rows.jsonl:7"):
        return to_conversation(row, spec=spec, where="rows.jsonl:7")


def messages(*turns: tuple[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **columns}


def user_blocks(row: Any, **source: Any) -> tuple[Block, ...]:
    """Return what the user of a row says first."""
    conversation = convert(row, **source)
    return next(turn.blocks for turn in conversation.turns if turn.role == "user")


def media(row: Any, **source: Any) -> tuple[Media, ...]:
    return convert(row, **source).media
