"""`run.json`, read back: each start of a run, where and how it computed, what it learned from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smolvlm.report.json_files import number_of, object_of, read_json_file, text_of, wrong


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRows:
    """What a run learns from one source."""

    name: str
    num_rows: int
    """In its files."""
    num_used: int
    """Chosen by its sampling, and whole."""
    repeat: float
    """Times an epoch goes through those."""
    num_tokens: int
    """Of those, once through."""
    num_tiles: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """One start of a run, as `run.json` describes it."""

    step: int
    """Step that it went on from; 0 is the beginning."""
    device: Mapping[str, object]
    kernels: Mapping[str, object]
    versions: Mapping[str, object]
    commit: str | None
    is_modified: bool
    started_at: str = ""
    """ISO 8601; empty where that was not written."""
    seconds: float | None = None
    """How long it took in all; None of one that was stopped."""
    sources: tuple[SourceRows, ...] = ()


def read_starts(path: Path) -> tuple[Start, ...]:
    """Return the starts of `run.json`, oldest first; none where there is no file.

    Raises:
        SampleError: it is not what a run writes.
    """
    if not path.is_file():
        return ()
    newest = read_json_file(path)
    earlier = newest.get("earlier", []) if isinstance(newest, dict) else None
    if not isinstance(earlier, list) or not all(isinstance(start, dict) for start in earlier):
        raise wrong("an object, with a list of objects as `earlier`")
    return tuple(_start(content) for content in (*earlier, newest))


def _start(content: Mapping[str, object]) -> Start:
    device, kernels, versions = (
        object_of(content, name) for name in ("device", "kernels", "versions")
    )
    commit = content.get("commit")
    return Start(
        step=int(number_of({"step": 0, **content}, "step")),
        device=device,
        kernels=kernels,
        versions=versions,
        commit=None if commit is None else text_of(content, "commit"),
        is_modified=content.get("modified") is True,
        started_at=text_of({"started_at": "", **content}, "started_at"),
        seconds=number_of(content, "seconds") if "seconds" in content else None,
        sources=_sources(content.get("sources", [])),
    )


def _sources(value: object) -> tuple[SourceRows, ...]:
    if not isinstance(value, list) or not all(isinstance(source, dict) for source in value):
        raise wrong("a list of objects as `sources`")
    return tuple(
        SourceRows(
            name=text_of(source, "name"),
            num_rows=int(number_of(source, "num_rows")),
            num_used=int(number_of(source, "num_used")),
            repeat=number_of(source, "repeat"),
            num_tokens=int(number_of(source, "num_tokens")),
            num_tiles=int(number_of(source, "num_tiles")),
        )
        for source in value
    )
