"""The folders of what was fetched stay within their bounds."""

import os
import time
from pathlib import Path

import pytest

from smolvlm.errors import ConfigError
from smolvlm.media.kept_files import (
    MEDIA,
    ROWS,
    KeptFiles,
    make_room,
    max_bytes,
    media_dir,
)


def kept(folder: Path, name: str, *, size: int, age_s: float) -> Path:
    path = folder / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_what_was_longest_unused_goes_first(tmp_path: Path) -> None:
    old, older, new = (
        kept(tmp_path, name, size=400, age_s=age)
        for name, age in (("aa1", 2000), ("bb1", 5000), ("ab1", 1000))
    )
    assert make_room(tmp_path, 1200, MEDIA) == 0
    assert make_room(tmp_path, 1100, MEDIA) == 1
    assert (old.exists(), older.exists(), new.exists()) == (True, False, True)
    assert make_room(tmp_path, 500, MEDIA) == 1
    assert (old.exists(), new.exists()) == (False, True)


def test_what_may_be_about_to_be_opened_stays(tmp_path: Path) -> None:
    paths = [kept(tmp_path, f"aa{n}", size=400, age_s=60) for n in range(3)]
    assert make_room(tmp_path, 500, MEDIA) == 0
    assert all(path.exists() for path in paths)


def test_rows_of_this_week_stay_whatever_they_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    day = 86_400.0
    old, new = (
        kept(tmp_path / "version", name, size=4_000_000, age_s=age)
        for name, age in (("aa1", 8 * day), ("bb1", 3 * day))
    )
    (tmp_path / "version" / ".lock").touch()
    os.utime(tmp_path / "version" / ".lock", (0, 0))
    assert make_room(tmp_path, 2_000_000, ROWS) == 1
    assert (old.exists(), new.exists()) == (False, True)
    assert (tmp_path / "version" / ".lock").exists(), "who removed it would let two in"
    message = caplog.text.strip()
    assert "more than $SMOLVLM_ROWS_GB: 0.002 GB" in message
    assert message.endswith("0.004 GB were used lately and stay")


def test_use_keeps_a_file(tmp_path: Path) -> None:
    used, unused = (kept(tmp_path, name, size=400, age_s=5000) for name in ("aa1", "bb1"))
    KeptFiles(MEDIA, media_dir).used(used)
    assert make_room(tmp_path, 500, MEDIA) == 1
    assert (used.exists(), unused.exists()) == (True, False)
    KeptFiles(MEDIA, media_dir).used(unused)  # gone: nothing happens


def test_a_process_looks_first_and_then_by_what_it_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path))
    monkeypatch.setenv(MEDIA.variable, "0.000001")  # 1,000 bytes
    first = kept(media_dir(), "aa1", size=2000, age_s=5000)
    process = KeptFiles(MEDIA, media_dir)
    process.fetched(1)
    assert not first.exists(), "left by an earlier one"
    second = kept(media_dir(), "aa2", size=2000, age_s=5000)
    process.fetched(1)
    assert second.exists(), "it has fetched next to nothing since"
    process.fetched(500)
    assert not second.exists()


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_a_bound_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEDIA.variable, text)
    with pytest.raises(ConfigError, match=r"\$SMOLVLM_MEDIA_GB.*is no number above 0"):
        max_bytes(MEDIA)
    monkeypatch.setenv(MEDIA.variable, "2.5")
    assert max_bytes(MEDIA) == 2_500_000_000
