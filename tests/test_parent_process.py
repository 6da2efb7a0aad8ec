"""Children end with their parent, however it ended; real processes, really killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smolvlm.parent_process import Parent
from tests.processes import HAS_PROC, is_alive, wait_until

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not HAS_PROC, reason="children of others are looked up in /proc")
PARENT = """
import ctypes, multiprocessing, os, sys, threading, time
from smolvlm.parent_process import Parent

def child(parent, work):
    parent.end_with()
    parent.end_with()
    os.write(1, b"%d\\n" % os.getpid())
    while work == "python":
        pass
    ctypes.PyDLL(None).sleep(600) if work == "keeps the lock" else time.sleep(600)

def start(context, works):
    parent = Parent.here()
    for work in works:
        context.Process(target=child, args=(parent, work)).start()

if __name__ == "__main__":
    method, thread, end, *works = sys.argv[1:]
    begin = lambda: start(multiprocessing.get_context(method), works)
    if thread == "main":
        begin()
    else:
        (beside := threading.Thread(target=begin)).start()
        beside.join()
    sys.stdin.readline()
    os._exit(0) if end == "exits" else ctypes.string_at(0)
"""


@contextmanager
def started(
    *arguments: str, num_children: int
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start a parent; yield it and its children's numbers, which all watch it by then."""
    command, environment = [sys.executable, *arguments], os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    children: list[int] = []
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=environment
    ) as parent:
        assert parent.stdout is not None
        try:
            children += [int(parent.stdout.readline()) for _ in range(num_children)]
            yield parent, children
        finally:
            for process in filter(is_alive, (parent.pid, *children)):
                os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("parent") / "script.py"
    path.write_text(PARENT)
    return str(path)


@pytest.mark.parametrize("end", ["killed", "exits", "crashes"])
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_children_end_with_their_parent(script: str, method: str, end: str) -> None:
    works = ("python", "sleeps")
    with started(script, method, "main", end, *works, num_children=2) as (parent, children):
        assert all(map(is_alive, children))
        if end == "killed":
            parent.kill()
        assert parent.stdin is not None
        parent.stdin.close()
        wait_until(lambda: not any(map(is_alive, children)), lambda: children)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system ends such a process")
def test_linux_ends_one_that_no_thread_of_its_own_could(script: str) -> None:
    lock = "keeps the lock"
    with started(script, "spawn", "main", "killed", lock, num_children=1) as (parent, children):
        parent.kill()
        wait_until(lambda: not any(map(is_alive, children)), lambda: children)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_end_of_a_thread_that_started_them_ends_no_child(script: str, method: str) -> None:
    with started(script, method, "beside", "killed", "sleeps", num_children=1) as (
        parent,
        children,
    ):
        time.sleep(2)  # the thread is gone, and the child has looked
        assert all(map(is_alive, children))
        parent.kill()
        wait_until(lambda: not any(map(is_alive, children)), lambda: children)


LATE = """
import os, sys
from smolvlm.parent_process import Parent
Parent(int(sys.argv[1]), sys.argv[2] == "main").end_with()
print("lives")
"""


@pytest.mark.parametrize("thread", ["main", "beside"])
def test_a_child_that_comes_too_late_to_be_told_ends_at_once(thread: str) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    late = subprocess.run(
        [sys.executable, "-c", LATE, str(gone.pid), thread],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (late.returncode, late.stdout, late.stderr) == (1, "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere another program goes on")
def test_a_program_that_is_not_ours_is_ended_too() -> None:
    program = (
        "import subprocess; from smolvlm.parent_process import Parent; "
        "subprocess.run(Parent.here().command(['sh', '-c', 'echo $$; exec sleep 600']))"
    )
    with started("-c", program, num_children=1) as (parent, children):
        parent.kill()
        wait_until(lambda: not any(map(is_alive, children)), lambda: children)


def test_a_program_keeps_its_arguments_its_output_and_its_status() -> None:
    command = Parent.here().command(
        [sys.executable, "-c", "import sys; sys.exit(sys.argv[1])", "a b"]
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "a b\n")


def test_the_parent_itself_goes_on() -> None:
    Parent.here().end_with()


INTERRUPTED = """
import multiprocessing, os, sys, time
from smolvlm.parent_process import Parent

def child(parent):
    parent.end_with()
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    started = multiprocessing.get_context(sys.argv[1]).Process(target=child, args=(Parent.here(),))
    started.start()
    sys.stdin.readline()
    print(started.is_alive(), flush=True)
    started.terminate()
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_ctrl_c_is_left_to_the_parent(tmp_path: Path, method: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(INTERRUPTED)
    with started(str(path), method, num_children=1) as (parent, (child,)):
        os.kill(child, signal.SIGINT)
        time.sleep(0.5)
        said, _ = parent.communicate("\n")
        assert (said, parent.returncode) == ("True\n", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the command is started as it is")
def test_a_program_that_is_not_ours_answers_ctrl_c() -> None:
    program = (
        "import subprocess; from smolvlm.parent_process import Parent; "
        "print(subprocess.run(Parent.here().command(['sh', '-c', 'echo $$; exec sleep 600']))"
        ".returncode, flush=True)"
    )
    with started("-c", program, num_children=1) as (parent, (child,)):
        os.kill(child, signal.SIGINT)
        assert parent.communicate()[0] == "-2\n"
