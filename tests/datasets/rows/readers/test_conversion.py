"""The Arrow files that rows are kept in: made anew where they are damaged, done without where they
cannot be written."""

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smolvlm.datasets.rows.readers import conversion
from smolvlm.datasets.rows.readers.arrow import ArrowRows, JsonTable
from smolvlm.datasets.rows.readers.checked_arrow import DamagedFileError
from smolvlm.datasets.rows.readers.conversion import arrow_rows
from smolvlm.datasets.rows.tables import read_rows
from smolvlm.errors import ConfigError, SampleError
from tests.small_disks import memory_disk, run

NUM_ROWS = 2000


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(conversion, "IN_MEMORY_BYTES", 1000)
    return tmp_path / "home"


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"number": n, "x": "y" * 90}) + "\n" for n in range(2000)))
    return path


def numbers(path: Path) -> list[int]:
    rows = arrow_rows(path, "jsonl", label="rows.jsonl")
    return [json.loads(text)["number"] for text in rows.values(0)]


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", b"x" * 5000, bytes(200_000)])
def test_a_foreign_file_is_made_anew_with_a_word(
    rows_file: Path, home: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert numbers(rows_file) == [*range(NUM_ROWS)]
    (kept,) = (home / "rows").iterdir()
    kept.write_bytes(content)
    assert numbers(rows_file) == [*range(NUM_ROWS)]
    assert notes(caplog) == [f"note: {kept} is damaged and is made anew"]
    assert [path.name for path in (home / "rows").iterdir()] == [kept.name]


def places_of(kept: Path) -> dict[str, int]:
    """Return where a byte of each part of a file of rows lies."""
    content = kept.read_bytes()
    assert content.startswith(b"ARROW1")
    foot = content.rindex(b"ARROW1")
    last_row = json.dumps({"number": NUM_ROWS - 1, "x": "y" * 90}).encode()
    return {
        "its first bytes": 2,
        "the schema": content.index(b"number"),
        "a value": content.index(b"yyyy") + 1,
        "the last value": content.rindex(last_row) + 12,
        "offsets": content.index((2 * len(last_row) - 8).to_bytes(8, "little"), 100),
        "the foot": foot - 12,
        "its end": foot + 1,
        "the table of digests": foot + 20,
        "the last byte": len(content) - 1,
    }


PARTS = (
    *("its first bytes", "the schema", "a value", "the last value", "offsets", "the foot"),
    *("its end", "the table of digests", "the last byte"),
)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("bit", [1, 128])
def test_a_changed_byte_is_found_and_the_file_made_anew_with_a_word(
    rows_file: Path, home: Path, part: str, bit: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert numbers(rows_file) == [*range(NUM_ROWS)]
    (kept,) = (home / "rows").iterdir()
    before = kept.read_bytes()
    change(kept, at=places_of(kept)[part], bit=bit)
    assert numbers(rows_file) == [*range(NUM_ROWS)]
    assert notes(caplog) == [f"note: {kept} is damaged and is made anew"]
    assert kept.read_bytes() == before


def change(file: Path, *, at: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= bit
    file.write_bytes(content)


def test_every_single_byte_counts(rows_file: Path, home: Path, tmp_path: Path) -> None:
    rows_file.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(150)))
    rows = arrow_rows(rows_file, "jsonl", label="")
    assert len(rows) == 150
    (kept,) = (home / "rows").iterdir()
    content = kept.read_bytes()
    rng = random.Random(0)
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randrange(8)
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(DamagedFileError):
            ArrowRows(tmp_path / "changed").check()


def test_a_large_file_is_checked_as_it_is_read_and_deleted(
    rows_file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "CHECKED_BYTES", 0)
    monkeypatch.setattr(conversion, "BATCH_BYTES", 1000)
    assert numbers(rows_file) == [*range(NUM_ROWS)]
    (kept,) = (home / "rows").iterdir()
    change(kept, at=places_of(kept)["the last value"], bit=1)
    table = JsonTable(arrow_rows(rows_file, "jsonl", label=""), label="rows.jsonl")
    assert table[0] == {"number": 0, "x": "y" * 90}, "its batch is whole"
    with pytest.raises(ConfigError, match="this copy of rows is not what was written") as caught:
        table[NUM_ROWS - 1]
    assert (caught.value.where, str(caught.value.fix)[:15]) == (str(kept), "give the same c")
    assert not kept.exists()
    assert numbers(rows_file) == [*range(NUM_ROWS)]


def test_a_process_that_is_handed_a_file_finds_what_was_changed_since(
    rows_file: Path, home: Path
) -> None:
    handed = pickle.dumps(arrow_rows(rows_file, "jsonl", label=""))
    (kept,) = (home / "rows").iterdir()
    assert pickle.loads(handed).value(1, 5) == 6
    change(kept, at=places_of(kept)["a value"], bit=1)
    with pytest.raises(ConfigError, match="this copy of rows is not what was written"):
        pickle.loads(handed).value(1, 5)
    numbers(rows_file)
    change(kept, at=places_of(kept)["the foot"], bit=1)
    with pytest.raises(ConfigError, match="this copy of rows is not what was written"):
        pickle.loads(handed)


@pytest.mark.parametrize("left", [0.99, 0.5, 0.01])
def test_a_file_that_was_cut_off_is_made_anew(rows_file: Path, home: Path, left: float) -> None:
    assert numbers(rows_file) == [*range(NUM_ROWS)]
    (kept,) = (home / "rows").iterdir()
    size = kept.stat().st_size
    os.truncate(kept, int(size * left))
    assert numbers(rows_file) == [*range(NUM_ROWS)]
    assert kept.stat().st_size == size


def test_a_full_disk_keeps_rows_in_memory(
    rows_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with memory_disk(tmp_path / "disk", size_mb=0.1) as disk:
        monkeypatch.setenv("SMOLVLM_HOME", str(disk))
        assert numbers(rows_file) == numbers(rows_file) == [*range(NUM_ROWS)]
        assert list((disk / "rows").iterdir()) == []
        assert notes(caplog) == [
            f"note: rows are not kept in {disk / 'rows'} (no space is left on the disk), but in "
            "memory, and read each time"
        ]


def test_a_read_only_disk_keeps_rows_in_memory(
    rows_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with memory_disk(tmp_path / "disk", size_mb=1) as disk:
        run("mount", "-o", "remount,ro", disk)
        monkeypatch.setenv("SMOLVLM_HOME", str(disk))
        assert numbers(rows_file) == [*range(NUM_ROWS)]
        assert "(Read-only file system), but in memory" in notes(caplog)[0]


KILLED = """
import os, signal, sys
from pathlib import Path
from smolvlm.datasets.rows.readers import conversion

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

conversion.IN_MEMORY_BYTES = 1000
conversion.json_lines = die
conversion.arrow_rows(Path(sys.argv[1]), "jsonl", label="")
"""


def test_what_a_killed_conversion_left_is_removed_by_that_of_any_file(
    rows_file: Path, home: Path
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(rows_file)], check=False)
    assert killed.returncode < 0
    assert len(list((home / "rows").glob(".*"))) == 1
    rows_file.write_text(rows_file.read_text() + '{"number": 2000}\n')
    assert numbers(rows_file) == [*range(NUM_ROWS + 1)]
    assert len(list((home / "rows").iterdir())) == 1


def test_a_file_in_a_folder_that_is_no_utf8_is_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "IN_MEMORY_BYTES", 0)
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"question": "a"}\n')
    assert len(arrow_rows(folder / "rows.jsonl", "jsonl", label="rows.jsonl")) == 1


def parquet_of(path: Path, *, has_checksums: bool) -> bytes:
    rows = [{"question": f"question {number}", "answer": "x" * 40} for number in range(20)]
    pq.write_table(
        pa.Table.from_pylist(rows),
        path,
        compression="none",
        use_dictionary=False,
        write_page_checksum=has_checksums,
        write_statistics=False,
    )
    return path.read_bytes()


def test_the_checksums_of_parquet_pages_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    data = parquet_of(path, has_checksums=True)
    at = data.index(b"question 7")
    for offset in (0, 9):
        changed = bytearray(data)
        changed[at + offset] ^= 1
        path.write_bytes(changed)
        with pytest.raises(SampleError, match=r"the Parquet file is damaged: .*CRC") as caught:
            arrow_rows(path, "parquet", label="rows.parquet")
        assert (caught.value.kind, caught.value.where) == ("bad_file", "rows.parquet")


@pytest.mark.parametrize("byte", [0x80, 0xE9, 0xFF])
def test_text_that_is_no_utf8_spoils_its_own_row(tmp_path: Path, byte: int) -> None:
    path = tmp_path / "rows.parquet"
    data = bytearray(parquet_of(path, has_checksums=False))
    data[data.index(b"question 7") + 3] = byte
    path.write_bytes(data)
    table = read_rows(path, "parquet", label="rows.parquet")
    with pytest.raises(SampleError, match="column `question`: 'utf-8' codec"):
        table[7]
    assert [table[row] for row in (6, 8)] == [
        {"question": f"question {row}", "answer": "x" * 40} for row in (6, 8)
    ]
    values = list(table.values("question"))
    assert isinstance(values[7], SampleError)
    assert values[:7] + values[8:] == [f"question {row}" for row in range(20) if row != 7]
