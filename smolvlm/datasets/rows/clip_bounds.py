"""Which part of a clip a row means: begin and end in seconds, in the spellings that exist."""

import re
import sys
from dataclasses import dataclass

from smolvlm.config.problems import shown_value
from smolvlm.datasets.rows.fields import Fields
from smolvlm.datasets.rows.keys import END_KEYS, START_KEYS
from smolvlm.datasets.rows.refusals import leave_unread
from smolvlm.errors import SampleError

_TIMECODE = re.compile(r"^(?:([0-9]{1,4}):)?([0-9]{1,4}):([0-9]{1,2}(?:\.[0-9]{1,9})?)$")
_NUMBER = re.compile(r"^[0-9]{1,12}(?:\.[0-9]{1,12})?$")
MILLISECONDS = "_ms"
_LENGTH_KEYS = ("duration", "duration_s", "length", "clip_duration", "clip_length")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Begin and end in seconds; None is the clip's own."""

    start_s: float | None = None
    end_s: float | None = None

    def __bool__(self) -> bool:
        return self.start_s is not None or self.end_s is not None


def take_bounds(fields: Fields) -> Bounds:
    """Return the part of a clip that a row, a block or a clip's own object names.

    Raises:
        SampleError: a bound in two spellings, one that is no time, or an end before its begin.
    """
    if not has_bounds(fields):
        return Bounds()
    start_s = _time(*fields.take_one(START_KEYS, what="where the clip begins"))
    end_s = _time(*fields.take_one(END_KEYS, what="where the clip ends"))
    if end_s is None and (lengths := fields.given(_LENGTH_KEYS)):
        what = f"`{lengths[0]}` beside a begin: it may be the part's length, or the clip's"
        raise SampleError(
            what,
            kind="unread_key",
            fix=f"write the end, `end_s`; or {leave_unread(lengths[0])}",
        )
    if start_s is not None and end_s is not None and start_s >= end_s:
        raise SampleError(f"start_s={start_s:g} is not before end_s={end_s:g}", fix="fix the times")
    return Bounds(start_s, end_s)


def has_bounds(fields: Fields) -> bool:
    return bool(fields.given((*START_KEYS, *END_KEYS)))


def joined_bounds(one: Bounds, other: Bounds) -> Bounds:
    """Return the bounds of two places, of which one may say something."""
    if one and other:
        raise SampleError("`start_s` or `end_s` stands twice", fix="keep it in one place")
    return one or other


def seconds_of(value: object) -> float | None:
    """Return a number, 0 or more, or a time such as 1:02:03.5 as seconds; None of anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value <= sys.float_info.max else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _NUMBER.match(text):
        return float(text)
    if match := _TIMECODE.match(text):
        return 3600 * float(match[1] or 0) + 60 * float(match[2]) + float(match[3])
    return None


def _time(key: str, value: object) -> float | None:
    """Return a number of seconds, or of milliseconds, or a time such as 1:02:03.5, in seconds."""
    if value is None:
        return None
    seconds = seconds_of(value)
    if seconds is None:
        raise SampleError(
            f"`{key}` is {shown_value(value)}, no time in seconds",
            fix="write a number, 0 or more, or a time such as 1:02:03.5, or leave it out",
        )
    return seconds / 1000 if key.endswith(MILLISECONDS) else seconds
