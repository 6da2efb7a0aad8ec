"""Files of JSON, read strictly: whole files, files of lines, and single keys of their objects.

A last line that was cut off, as a killed run leaves it, is passed over; all else that is not as
expected is a SampleError that says what was.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from sys import float_info
from typing import Any, TypeGuard, TypeVar

from smolvlm.errors import SampleError, located

Value = TypeVar("Value")


def read_json_file(path: Path) -> Any:
    """Return a file's content; raises SampleError where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        fix = "write it again, or delete it"
        raise SampleError(f"not JSON ({error})", kind="bad_file", fix=fix) from error


def read_json_lines(path: Path, read: Callable[[dict[str, object]], Value]) -> Iterator[Value]:
    """Yield what is read of each line; an error names the line."""
    if not path.is_file():
        return
    lines = [
        line
        for line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1)
        if line[1].strip()
    ]
    for number, line in lines:
        with located(f"{path}:{number}"):
            try:
                content = json.loads(line)
            except json.JSONDecodeError as error:
                if number == lines[-1][0]:
                    return  # the run was stopped while writing it
                raise SampleError(
                    f"not JSON ({error})", kind="bad_file", fix="delete the line"
                ) from error
            if not isinstance(content, dict):
                raise wrong("an object")
            value = read(content)
        yield value


def is_finite_number(value: object) -> TypeGuard[int | float]:
    """Say whether a value is a number that a float holds."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= float_info.max
    )


def number_of(line: Mapping[str, object], key: str) -> float:
    """Return a finite number."""
    if not is_finite_number(value := line.get(key)):
        raise wrong(f"a number as `{key}`")
    return float(value)


def share_of(line: Mapping[str, object], key: str) -> float:
    """Return a number from 0 to 1, or what true and false stand for."""
    is_right = line.get(key)
    value = float(is_right) if isinstance(is_right, bool) else number_of(line, key)
    if not 0 <= value <= 1:
        raise wrong(f"a share from 0 to 1 as `{key}`")
    return value


def text_of(line: Mapping[str, object], key: str) -> str:
    """Return a text."""
    if not isinstance(value := line.get(key), str):
        raise wrong(f"text as `{key}`")
    return value


def object_of(line: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Return an object."""
    if not isinstance(value := line.get(key), dict):
        raise wrong(f"an object as `{key}`")
    return value


def texts_of(line: Mapping[str, object], key: str) -> tuple[str, ...]:
    """Return a list of texts."""
    value = line.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong(f"a list of texts as `{key}`")
    return tuple(value)


def wrong(expected: str) -> SampleError:
    """Return the error of a file that holds something else."""
    return SampleError(f"expected {expected}", kind="bad_file", fix="write the file again")
