"""A part of the corpus: some of each kind, and all that found a fault once."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from fuzz import clips, pictures, row_files, settings_files, tables, tars
from fuzz.campaign import run_campaign
from fuzz.checked import CheckedInput
from fuzz.kinds import KINDS, SHARES, Kind
from fuzz.names import Name, parse_kind, parse_name, shared_out

SEEDS: dict[int, list[str]] = yaml.safe_load(Path("fuzz/seeds.yaml").read_text(encoding="utf-8"))
NUM_OF_A_KIND: dict[Kind, int] = {
    "rows": 250,
    "tar": 150,
    "tables": 120,
    "yaml": 100,
    "pictures": 250,
    "clips": 80,
    "checkpoints": 40,
}


def test_some_inputs_of_each_kind_have_no_fault() -> None:
    names = [Name(kind, number) for kind, count in NUM_OF_A_KIND.items() for number in range(count)]
    outcome = run_campaign(names, seed=1000)
    assert outcome.faults == []
    assert outcome.num_inputs == NUM_OF_A_KIND
    # A corpus of which nothing is accepted would say nothing of swaps.
    assert {kind for kind, count in outcome.num_accepted.items() if count > 5} == {*KINDS}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_found_a_fault_finds_none(seed: int) -> None:
    assert run_campaign([parse_name(name) for name in SEEDS[seed]], seed=seed).faults == []


def bytes_of(
    make: Callable[[Random, Path, Any], tuple[list[str], int]], folder: Path, seed: int
) -> dict[str, bytes]:
    """Return the files of an input, which nobody checks."""
    folder.mkdir()

    def unchecked(entry: object, folder: Path) -> CheckedInput:
        return CheckedInput(refusal=None)

    make(Random(seed), folder, unchecked)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "again.yaml"  # what was read, written out
    }


@pytest.mark.parametrize(
    "make",
    [
        row_files.fuzz_rows,
        tars.fuzz_tars,
        tables.fuzz_tables,
        pictures.fuzz_pictures,
        clips.fuzz_clips,
        settings_files.fuzz_settings,
    ],
)
def test_a_seed_makes_the_same_bytes_each_time(make: Any, tmp_path: Path) -> None:
    made = [bytes_of(make, tmp_path / f"a{seed}", seed) for seed in range(8)]
    again = [bytes_of(make, tmp_path / f"b{seed}", seed) for seed in range(8)]
    assert made == again
    assert len({tuple(sorted(files.items())) for files in made}) == len(made)


def test_a_name_is_read_as_it_is_written() -> None:
    assert parse_name("tar:12") == Name("tar", 12)
    assert str(Name("tar", 12)) == "tar:12"
    with pytest.raises(ValueError, match="none of rows, tar"):
        parse_kind("tars")


def test_an_input_is_made_by_its_name_and_the_seed_alone() -> None:
    drawn = [Name("rows", 3).random(seed).random() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert Name("tar", 3).random(0).random() != drawn[0]


@pytest.mark.parametrize("number", [1, 7, 100, 12_345])
def test_inputs_are_shared_out_whole(number: int) -> None:
    names = shared_out(number, [*KINDS])
    assert len(names) == len(set(names)) == number
    for kind, share in SHARES.items():
        count = sum(name.kind == kind for name in names)
        assert abs(count - number * share / sum(SHARES.values())) <= 1
