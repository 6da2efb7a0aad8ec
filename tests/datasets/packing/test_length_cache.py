"""Sizes kept on disk: the same from any number of processes, resumed where it was stopped, never
stale."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing import length_cache
from smolvlm.datasets.packing.length_cache import index_folder, measure_sources
from smolvlm.datasets.packing.lengths import SIZES, Meter
from smolvlm.datasets.rows.conversations import OpenSource, open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from tests.small_disks import memory_disk


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(length_cache, "PART_ROWS", 8)
    monkeypatch.setattr(length_cache, "SMALL_ROWS", 16)


@pytest.fixture
def sources(tmp_path: Path, photos: dict[str, Path]) -> tuple[OpenSource, ...]:
    pictures = [str(path) for path in photos.values()]
    rows = [
        {
            "question": f"{number}? " + "why " * (number % 7),
            "answer": "yes",
            "image": pictures[number % len(pictures)],
        }
        for number in range(30)
    ]
    rows[11]["image"] = "later.png"
    (tmp_path / "many.json").write_text(json.dumps(rows))
    (tmp_path / "few.jsonl").write_text(json.dumps({"question": "q", "answer": "a"}))
    return open_sources(
        load_mixture(
            [{"path": "many.json"}, {"path": "few.jsonl"}],
            base_dir=tmp_path,
            allow_outside_root=True,
        )
    )


def parts_of(source: OpenSource, prompt: PromptSettings) -> list[Path]:
    return sorted(index_folder(source, prompt).glob("*.parquet"))


def test_processes_change_nothing(sources: tuple[OpenSource, ...], prompt: PromptSettings) -> None:
    alone = [
        Meter(prompt.encoder(), prompt.media).sizes(
            own.all_rows(), own.rows.tolist(), media_root=own.spec.media_root
        )
        for own in sources
    ]
    told: list[tuple[int, int]] = []
    shared = measure_sources(
        sources, prompt, num_workers=2, report=lambda *numbers: told.append(numbers)
    )
    assert [table.to_pylist() for table in shared] == [table.to_pylist() for table in alone]
    assert [total for _, total in told] == [31] * 5
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (31, 31)
    assert len(parts_of(sources[0], prompt)) == 4, "kept"
    assert parts_of(sources[1], prompt) == [], "small, so not kept"


def test_parts_without_a_bad_row_share_the_column_that_says_so(
    sources: tuple[OpenSource, ...], prompt: PromptSettings
) -> None:
    for _ in ("measured", "kept"):
        errors = measure_sources(sources, prompt)[0]["error"].chunks
        assert [chunk.null_count < len(chunk) for chunk in errors] == [False, True, False, False], (
            "row 11 is bad"
        )
        assert (
            len({chunk.buffers()[1].address for chunk in errors if chunk.null_count == len(chunk)})
            == 1
        )


def test_a_stopped_preparation_goes_on(
    sources: tuple[OpenSource, ...], prompt: PromptSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_sources(sources, prompt, num_workers=1)
    parts = parts_of(sources[0], prompt)
    parts[2].unlink()
    measured: list[list[int]] = []
    sizes = Meter.sizes

    def counting(self: Meter, conversations: Any, rows: Any, **options: Any) -> Any:
        measured.append(list(rows))
        return sizes(self, conversations, measured[-1], **options)

    monkeypatch.setattr(Meter, "sizes", counting)
    again = measure_sources(sources, prompt, num_workers=1)
    assert [table.to_pylist() for table in again] == [table.to_pylist() for table in whole]
    assert measured == [[11], list(range(16, 24)), [0]], (
        "the bad row, the missing part, the source that is not kept"
    )
    assert parts_of(sources[0], prompt) == parts


def test_a_row_that_was_mended_is_good(
    sources: tuple[OpenSource, ...], prompt: PromptSettings, tmp_path: Path, photos: dict[str, Path]
) -> None:
    first = measure_sources(sources, prompt, num_workers=1)[0].to_pylist()
    assert [row["row"] for row in first if row["error"]] == [11]
    (tmp_path / "later.png").write_bytes(photos["coffee"].read_bytes())
    second = measure_sources(sources, prompt, num_workers=1)[0].to_pylist()
    assert [row["row"] for row in second] == list(range(30))
    assert not any(row["error"] for row in second)


def test_what_sizes_depend_on_names_their_folder(
    sources: tuple[OpenSource, ...], prompt: PromptSettings, tmp_path: Path
) -> None:
    folder = index_folder(sources[0], prompt)
    assert folder == index_folder(sources[0], prompt) != index_folder(sources[1], prompt)
    path = tmp_path / "many.json"
    os.utime(path, (1, 1))
    assert folder != index_folder(sources[0], prompt)


def test_a_part_is_a_plain_parquet_file(
    sources: tuple[OpenSource, ...], prompt: PromptSettings
) -> None:
    measure_sources(sources, prompt, num_workers=1, keeping="all")
    (part,) = parts_of(sources[1], prompt)
    (row,) = pyarrow.parquet.read_table(part).to_pylist()
    assert (row["row"], row["num_tiles"], row["error"]) == (0, 0, None)
    assert row["num_tokens"] > 5


def test_a_part_with_other_columns_is_measured_anew(
    sources: tuple[OpenSource, ...], prompt: PromptSettings
) -> None:
    whole = measure_sources(sources, prompt, num_workers=1)
    part = parts_of(sources[0], prompt)[2]
    wanted = pyarrow.parquet.read_table(part)
    pyarrow.parquet.write_table(wanted.drop_columns(["num_positions"]), part)
    again = measure_sources(sources, prompt, num_workers=1)
    assert [table.to_pylist() for table in again] == [table.to_pylist() for table in whole]
    assert pyarrow.parquet.read_table(part).equals(wanted)


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign", "changed", "zeros"])
def test_a_damaged_part_is_measured_anew_with_a_word(
    sources: tuple[OpenSource, ...],
    prompt: PromptSettings,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = [table.to_pylist() for table in measure_sources(sources, prompt)]
    part = parts_of(sources[0], prompt)[2]
    whole = part.read_bytes()
    damaged = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "foreign": b"PAR1" + b"x" * 500 + b"PAR1",
        "changed": whole[:40] + bytes([whole[40] ^ 1]) + whole[41:],
        "zeros": bytes(len(whole)),
    }
    part.write_bytes(damaged[damage])
    assert [table.to_pylist() for table in measure_sources(sources, prompt)] == before
    assert [record.message for record in caplog.records] == [
        f"note: sizes in {part.parent} are damaged: these rows are measured again"
    ]
    assert part.read_bytes() == whole


def test_a_full_disk_keeps_no_sizes_and_ends_nothing(
    sources: tuple[OpenSource, ...],
    prompt: PromptSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = [table.to_pylist() for table in measure_sources(sources, prompt)]
    with memory_disk(tmp_path / "disk", size_mb=0.008) as disk:
        monkeypatch.setenv("SMOLVLM_HOME", str(disk))
        assert [table.to_pylist() for table in measure_sources(sources, prompt)] == before
        assert [record.message for record in caplog.records] == [
            f"note: sizes are not kept in {disk / 'lengths'} (no space is left on the disk): every "
            "start measures again"
        ]
        assert list(disk.glob("lengths/*/.*")) == []


def test_the_columns_are_those_that_index_6_keeps() -> None:
    """Others would be measured anew, and of millions of rows that takes hours."""
    assert [f"{field.name} {field.type}" for field in SIZES] == [
        *(
            "row int32",
            "num_tokens int32",
            "num_positions int32",
            "num_tiles int32",
            "num_supervised_tokens int32",
        ),
        *(
            "prefix_tokens int32",
            "prefix_tiles int32",
            "prefix_key int64",
            "modality int8",
            "is_preference bool",
        ),
        *("content int64", "media_sizes int64", "media_times int64"),
        *("where string", "kind string", "error string", "fix string"),
    ]


@pytest.mark.slow
def test_a_local_ray_cluster_gives_the_same(
    sources: tuple[OpenSource, ...], prompt: PromptSettings
) -> None:
    """Ray's own processes warn of many things; only what comes back matters here, so they are not
    held to errors."""
    alone = [
        Meter(prompt.encoder(), prompt.media).sizes(
            own.all_rows(), own.rows.tolist(), media_root=own.spec.media_root
        )
        for own in sources
    ]
    code = (
        "import pickle, sys, ray\n"
        "from smolvlm.datasets.packing import length_cache\n"
        "length_cache.PART_ROWS = 8\n"
        "sources, prompt = pickle.load(sys.stdin.buffer)\n"
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
        "found = length_cache.measure_sources(sources, prompt, engine='ray')\n"
        "ray.shutdown()\n"
        "open(sys.argv[1], 'wb').write(pickle.dumps([table.to_pylist() for table in found]))\n"
    )
    out = Path(sources[0].spec.path).with_name("found.pickle")
    given = pickle.dumps((sources, prompt))
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], input=given, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert pickle.loads(out.read_bytes()) == [table.to_pylist() for table in alone]
