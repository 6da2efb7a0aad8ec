"""Faults that a test plants in the package, in a child process alone: each is noticed, or the
campaign is blind to its kind."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from PIL import Image

from smolvlm.check import check_rows
from smolvlm.datasets.rows import conversations, formats
from smolvlm.datasets.rows.readers import conversion
from smolvlm.records import Conversation, ImageRef

_to_conversation = formats.to_conversation
_json_lines = conversion.json_lines


def _each_row(change: Callable[[Conversation], Conversation]) -> None:
    """Change every conversation that is read."""

    def read(row: object, **details: Any) -> Conversation:
        return change(_to_conversation(row, **details))

    conversations.to_conversation = read


def an_exception() -> None:
    def change(_: Conversation) -> Conversation:
        raise KeyError("planted")

    _each_row(change)


def an_endless_loop() -> None:
    def change(_: Conversation) -> Conversation:
        while True:
            pass

    _each_row(change)


def a_wait() -> None:
    def change(_: Conversation) -> Conversation:
        signal.pause()
        raise AssertionError("nothing wakes it")

    _each_row(change)


def a_dead_process() -> None:
    def change(_: Conversation) -> Conversation:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("dead")

    _each_row(change)


def too_much_memory() -> None:
    def change(row: Conversation) -> Conversation:
        assert bytearray(1 << 40)
        return row

    _each_row(change)


def the_row_before() -> None:
    """Hand out the row read before: whole rows, each in another's place."""
    earlier: list[Conversation] = []

    def change(row: Conversation) -> Conversation:
        earlier.append(row)
        return replace(earlier[max(len(earlier) - 2, 0)], where=row.where)

    _each_row(change)


def another_picture() -> None:
    last: list[ImageRef] = []

    def change(row: Conversation) -> Conversation:
        shown = [block for block in row.media if isinstance(block, ImageRef)]
        other = last[0] if last else None
        last[:] = shown[:1] or last
        if other is None:
            return row
        turns = tuple(
            replace(
                turn,
                blocks=tuple(
                    other if isinstance(block, ImageRef) else block for block in turn.blocks
                ),
            )
            for turn in row.turns
        )
        return replace(row, turns=turns)

    _each_row(change)


def a_lost_picture() -> None:
    def change(row: Conversation) -> Conversation:
        turns = tuple(
            replace(turn, blocks=tuple(block for block in turn.blocks if isinstance(block, str)))
            for turn in row.turns
        )
        return replace(row, turns=turns)

    _each_row(change)


def a_lost_turn() -> None:
    _each_row(lambda row: replace(row, turns=row.turns[-2:]))


def a_lost_system_turn() -> None:
    _each_row(
        lambda row: replace(row, turns=tuple(turn for turn in row.turns if turn.role != "system"))
    )


def turns_in_another_order() -> None:
    def change(row: Conversation) -> Conversation:
        asked = [turn for turn in row.turns if turn.role == "user"]
        turns = iter(reversed(asked))
        return replace(
            row, turns=tuple(next(turns) if turn.role == "user" else turn for turn in row.turns)
        )

    _each_row(change)


def speakers_exchanged() -> None:
    other = {"user": "assistant", "assistant": "user", "system": "system"}
    _each_row(
        lambda row: replace(
            row, turns=tuple(replace(turn, role=other[turn.role]) for turn in row.turns)
        )
    )


def an_unread_key_in_silence() -> None:
    _each_row(lambda row: replace(row, unread_keys=()))


def a_lost_row() -> None:
    def lines(stream: BinaryIO, **limits: int) -> Iterator[Any]:
        yield from list(_json_lines(stream, **limits))[:1]

    conversion.json_lines = lines


def a_damaged_picture() -> None:
    """Let any picture of a readable header pass."""
    check_rows.open_rgb = lambda *_, **__: Image.new("RGB", (33, 21))
