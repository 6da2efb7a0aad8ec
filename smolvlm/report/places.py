"""Where a run ran, in words: the rows of a table, from the starts that `run.json` describes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from smolvlm.pages.token_text import plural
from smolvlm.report.starts import Start


def place_rows(starts: Sequence[Start]) -> list[tuple[str, str]]:
    """Return name and value of what there is to know of the newest start, then of each earlier one.

    Args:
        starts: oldest first.
    """
    if not starts:
        return []
    *earlier, newest = starts
    rows = [("started", when(newest.started_at))] if newest.started_at else []
    if newest.seconds is not None:
        took = f"{duration(newest.seconds)}: loading, steps, evaluations, saving"
        rows.append(("took in all", took))
    rows.append(("device", device_words(newest.device)))
    rows += [(name.replace("_", " "), _words(value)) for name, value in newest.kernels.items()]
    rows.append(
        ("versions", ", ".join(f"{name} {value}" for name, value in newest.versions.items()))
    )
    if newest.commit:
        rows.append(("commit", newest.commit + (", modified" if newest.is_modified else "")))
    if earlier:
        rows.append(("resumed", f"at step {newest.step:,}"))
    return rows + [
        (f"earlier, from step {start.step:,}", _summary(start, newest)) for start in earlier
    ]


def duration(seconds: float) -> str:
    """Return `42 s`, `12 min 5 s` or `3 h 7 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def when(started_at: str) -> str:
    """Return `2026-01-31 12:00 UTC`; what is no time stays as it is."""
    try:
        at = datetime.fromisoformat(started_at)
    except ValueError:
        return started_at
    if at.tzinfo is None:
        return started_at
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def device_words(device: Mapping[str, object]) -> str:
    """Return `cpu: Intel Xeon, 2 threads, 4 ranks (fsdp2, 2 to a pack, gather)`; keys that are
    missing are left out."""
    words = [f"{device.get('type', '')}: {device.get('name', '')}".strip(": ")]
    for key, noun in (("num_threads", "thread"), ("num_ranks", "rank")):
        if isinstance(count := device.get(key), int):
            words.append(plural(count, noun))
    if _count(device, "num_ranks") > 1 and (sharing := _sharing(device)):
        words[-1] += f" ({sharing})"
    return ", ".join(words)


def _sharing(device: Mapping[str, object]) -> str:
    """Return how ranks share the work."""
    words = [str(device["engine"])] if "engine" in device else []
    if (ranks := _count(device, "context_ranks")) > 1:
        words += [f"{ranks} to a pack", str(device.get("context_exchange", ""))]
    return ", ".join(filter(None, words))


def _count(device: Mapping[str, object], key: str) -> int:
    return value if isinstance(value := device.get(key), int) else 0


def _summary(start: Start, newest: Start) -> str:
    """Return a start's device, and where its kernels, versions and commit are not the newest's."""
    words = [when(start.started_at)] if start.started_at else []
    words.append(device_words(start.device))
    for name in ("kernels", "versions"):
        now = getattr(newest, name)
        words += [
            f"{key.replace('_', ' ')} {_words(value)}"
            for key, value in getattr(start, name).items()
            if now.get(key) != value
        ]
    if start.commit and start.commit != newest.commit:
        words.append(f"commit {start.commit[:12]}")
    return "; ".join(words)


def _words(value: object) -> str:
    if value is None:
        return "none"
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
