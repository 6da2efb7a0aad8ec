"""A campaign leaves nothing behind: neither when it ends, nor for long when it is killed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.util import get_temp_dir
from pathlib import Path

import pytest

from fuzz.campaign import Limits, run_campaign
from fuzz.campaign_folder import HOME, PREFIX, campaign_folder, remove_dead
from fuzz.names import Name, shared_out
from tests.fuzz import planted
from tests.grids import as_grid

MOST_BYTES = 8 << 20
"""Of a campaign's folder; it was 186 MB for each child."""
WAIT_S = 120.0


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the temporary folder of these tests, of this process and of those it starts."""
    get_temp_dir()  # of the fork server, which outlives the test: it stays where it would be
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def left_in(folder: Path) -> list[str]:
    """Return what lies there, but for the socket of this process's fork server, which stays with it
    (and of a killed one's, which is empty)."""
    return [path.name for path in folder.iterdir() if not path.name.startswith("pymp-")]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def wait_for(what: str, condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture
def campaign(temporary: Path) -> Iterator[subprocess.Popen]:
    """Start a campaign in a process of its own and return it once its child has made inputs."""
    command = [sys.executable, "-m", "fuzz", "--inputs", "4000", "--processes", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for("an input", lambda: [*temporary.glob(f"{PREFIX}*/tmp*/*")])
        yield process
    finally:
        process.kill()
        process.wait()


def has_children(process: subprocess.Popen) -> bool:
    """Say whether a process of its session lives: nobody else started one there."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and fields[0] != "Z":
            return True
    return False


def test_a_campaign_that_ends_leaves_nothing(temporary: Path) -> None:
    names = [*shared_out(20, ["rows", "tar"]), *shared_out(12, ["checkpoints"])]
    assert run_campaign(names, seed=0, num_processes=2).faults == []
    assert left_in(temporary) == []


def test_a_child_that_dies_leaves_nothing(temporary: Path) -> None:
    names = shared_out(3, ["rows"])
    outcome = run_campaign(names, seed=0, limits=Limits(cpu_s=1), plant=planted.a_dead_process)
    assert {fault.kind for fault in outcome.faults} == {"death"}
    assert left_in(temporary) == []


def test_no_child_downloads_or_unpacks_a_model(temporary: Path) -> None:
    """A folder of a thirtieth of what a child's own download took."""
    with campaign_folder() as folder:
        assert size_of(folder) < MOST_BYTES
        assert [path.name[:10] for path in (folder / HOME / "files").iterdir()] == ["tokenizer-"]
    assert left_in(temporary) == []


def test_a_killed_campaigns_folder_goes_at_the_next_start(
    temporary: Path, campaign: subprocess.Popen
) -> None:
    with campaign_folder() as own:  # while it lives, nobody takes its folder away
        (other,) = [path for path in temporary.glob(f"{PREFIX}*") if path != own]
        remove_dead()
        assert (other / HOME / "files").is_dir()
    assert size_of(other) < MOST_BYTES
    campaign.kill()
    campaign.wait()
    wait_for("the end of its children", lambda: not has_children(campaign))
    assert other.is_dir()
    assert run_campaign([Name("rows", 1)], seed=0).num_inputs.total() == 1
    assert left_in(temporary) == []


@pytest.mark.parametrize("sent", [signal.SIGTERM, as_grid(signal.SIGINT)])
def test_a_campaign_that_is_asked_to_end_cleans_up(
    temporary: Path, campaign: subprocess.Popen, sent: signal.Signals
) -> None:
    os.kill(campaign.pid, sent)
    # Ctrl-C shows what was done until then.
    assert campaign.wait(timeout=WAIT_S) == (143 if sent == signal.SIGTERM else 0)
    wait_for("the end of its children", lambda: not has_children(campaign))
    assert left_in(temporary) == []


def test_what_is_not_ours_stays(temporary: Path) -> None:
    (temporary / f"{PREFIX}being-made").mkdir()
    (temporary / "another").mkdir()
    (temporary / "another" / "lock").touch()
    remove_dead()
    assert len([*temporary.iterdir()]) == 2
