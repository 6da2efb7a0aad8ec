"""Single-line mutants against the tests nearest to them: `make mutants`.

In: `tests/mutants.yaml`, entries of a file, the text `old` that stands once in it, what it becomes
(`new`), and the tests that should notice (by default the file that mirrors it). Out: the survivors
by name, and exit status 3 where fewer than 95 % died. Each mutant is written into a copy of the
tree, never in place, and tested in a process forked from this one, which has imported what is slow
to import and nothing of the project. The tests are run without any mutant first: those that fail
anyway would kill everything.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutants.yaml")
WANTED_SHARE = 0.95
"""Of the mutants that have to die."""
LIMIT_S = 120.0
"""For the tests of one mutant; one that hangs has been noticed."""
BASELINE_LIMIT_S = 1800.0
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", "work", "wheels", "__pycache__", ".*_cache", ".hypothesis"
)
SLOW_IMPORTS = (
    *(
        "numpy",
        "PIL.Image",
        "pyarrow",
        "pytest",
        "hypothesis",
        "torch",
        "transformers",
        "accelerate",
        "peft",
        "datasets",
    ),
    *(
        "transformers.trainer",
        "transformers.models.smolvlm.modeling_smolvlm",
        "pydantic",
        "typer",
        "skimage",
        "av",
    ),
)
"""Of other packages; what is missing is passed over."""

Fate = Literal["killed", "hung", "survived", "untested"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """One change of one line, and who should notice."""

    file: str
    """Below the tree's root."""
    old: str
    new: str
    tests: tuple[str, ...]
    """What pytest is given: files, or tests in them."""

    def __str__(self) -> str:
        return f"{self.file}: {_shown(self.old)} -> {_shown(self.new)}"


def _shown(text: str) -> str:
    return " ".join(text.split()) or "(nothing)"


def read_mutants(path: Path) -> list[Mutant]:
    """Read the list: file -> its mutants, each `old`, `new` and maybe `tests`.

    Raises:
        ValueError: a file stands in it twice, of which YAML would keep the last.
    """
    text = path.read_text()
    twice = [
        file
        for file, times in Counter(re.findall(r"^([^\s#-][^:]*):", text, re.MULTILINE)).items()
        if times > 1
    ]
    if twice:
        raise ValueError(f"{path.name}: {', '.join(twice)} stands there twice")
    content: dict[str, list[dict[str, Any]]] = yaml.safe_load(text)
    return [
        Mutant(
            file=file, old=entry["old"], new=entry["new"], tests=_tests_of(file, entry.get("tests"))
        )
        for file, entries in content.items()
        for entry in entries
    ]


def _tests_of(file: str, given: str | list[str] | None) -> tuple[str, ...]:
    if given is not None:
        return (given,) if isinstance(given, str) else tuple(given)
    room, _, name = file.removeprefix("smolvlm/").rpartition("/")
    return (f"tests/{room}/test_{name}" if room else f"tests/test_{name}",)


def problems(mutants: Sequence[Mutant], root: Path) -> list[str]:
    """Return what is wrong with the list: texts that do not stand once in their files, files that
    are not there."""
    found: list[str] = []
    for mutant in mutants:
        path = root / mutant.file
        times = path.read_text(encoding="utf-8").count(mutant.old) if path.is_file() else None
        if times is None:
            found.append(f"{mutant.file}: no such file")
        elif times != 1:
            found.append(
                f"{mutant.file}: {_shown(mutant.old)!r} stands {times} times in it, not once"
            )
        if mutant.old == mutant.new:
            found.append(f"{mutant.file}: {_shown(mutant.old)!r} becomes itself")
        missing = [test for test in mutant.tests if not (root / test.partition("::")[0]).exists()]
        found += [f"{mutant.file}: {test} is not there" for test in missing]
    twice = [mutant for mutant, times in Counter(mutants).items() if times > 1]
    return found + [f"{mutant} stands twice" for mutant in twice]


@contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """Give a copy of a tree for a while."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "tree"
        trained = root / "runs"  # what somebody trained here; `smolvlm/runs` is code

        def ignored(folder: str, names: list[str]) -> set[str]:
            out = {"runs"} if Path(folder) == trained.parent else set()
            return out | NOT_COPIED(folder, names)

        shutil.copytree(root, copy, ignore=ignored, symlinks=True)
        yield copy


@contextmanager
def _applied(mutant: Mutant, tree: Path) -> Iterator[None]:
    """Write a mutant into a copy; then the file as it was.

    What Python compiled of the file is taken away: it is known by size and second alone, and both
    may be equal.
    """
    path = tree / mutant.file
    before = path.read_bytes()
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()
    path.write_bytes(before.decode("utf-8").replace(mutant.old, mutant.new).encode("utf-8"))
    try:
        yield
    finally:
        path.write_bytes(before)


def run_pytest(
    tree: Path,
    tests: Sequence[str],
    *,
    limit_s: float,
    log: Path | None = None,
    keeps_compiled: bool = False,
) -> int | None:
    """Run tests of a tree in a forked process; return pytest's exit status, None where it took too
    long.

    Args:
        tree: in front of `sys.path`, and the folder to run in.
        tests: what pytest is given.
        limit_s: after which the process and all that it started are ended.
        log: what it prints goes there, else nowhere.
        keeps_compiled: leave what Python compiles in the tree, for later runs.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _run_here(tree, tests, log, keeps_compiled=keeps_compiled)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _end_group(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    _end_group(child)
    os.waitpid(child, 0)
    return None


def _end_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _run_here(tree: Path, tests: Sequence[str], log: Path | None, *, keeps_compiled: bool) -> None:
    """Become a process that runs tests and ends."""
    status = 70
    try:
        os.setsid()
        output = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        sys.path[:] = [
            str(tree),
            *(entry for entry in sys.path if entry not in ("", str(ROOT), str(ROOT / "tests"))),
        ]
        if not keeps_compiled:
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        import pytest

        options = [
            "-x",
            "-q",
            *("-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"),
            "--hypothesis-seed=0",
            "--rootdir",
            str(tree),
        ]
        options += [
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        ]  # of plugins that this process has imported
        status = int(pytest.main([*options, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fate_of(status: int | None) -> Fate:
    """Say what an exit status of pytest means for a mutant."""
    if status is None:
        return "hung"
    if status == 0:
        return "survived"
    return "untested" if status in (4, 5) else "killed"  # 4: no such test; 5: none collected


def run_mutants(
    mutants: Sequence[Mutant],
    tree: Path,
    *,
    limit_s: float = LIMIT_S,
    say: Callable[[str], None] = print,
) -> dict[Mutant, Fate]:
    """Return what became of each mutant.

    Args:
        mutants: checked by `problems`.
        tree: a copy, in which each of them stands for a while.
        limit_s: for each.
        say: is told of each.
    """
    fates: dict[Mutant, Fate] = {}
    for number, mutant in enumerate(mutants, start=1):
        start = time.monotonic()
        with _applied(mutant, tree):
            fates[mutant] = fate_of(run_pytest(tree, mutant.tests, limit_s=limit_s))
        say(
            f"{number:>4} of {len(mutants)} {fates[mutant]:<9}{time.monotonic() - start:5.1f} s  "
            f"{mutant}"
        )
    return fates


def summary(fates: dict[Mutant, Fate]) -> list[str]:
    """Return the lines that a run ends with: survivors, then how many died."""
    alive = [mutant for mutant, fate in fates.items() if fate in ("survived", "untested")]
    died = len(fates) - len(alive)
    lines = [f"{fates[mutant]}: {mutant}\n  by {' '.join(mutant.tests)}" for mutant in alive]
    return [*lines, f"{died} of {len(fates)} died, {died / max(len(fates), 1):.1%}"]


def _warm_up() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in SLOW_IMPORTS:
        with suppress(ImportError):
            __import__(name)
    loaded = [name for name in sys.modules if name.partition(".")[0] == "smolvlm"]
    assert not loaded, f"the project's own modules must be read from the mutated tree: {loaded}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the list; 0 where enough died, 2 where the list or the tests are wrong, 3 where too many
    survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="mutants of files whose name holds this")
    parser.add_argument("--part", default="1/1", help="k/n: every n-th mutant from the k-th on")
    parser.add_argument("--list", type=Path, default=LIST)
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree that is copied")
    parser.add_argument(
        "--limit-s", type=float, default=LIMIT_S, help="for the tests of one mutant"
    )
    parser.add_argument("--cold", action="store_true", help="import nothing ahead")
    options = parser.parse_args(argv)
    everything = read_mutants(options.list)
    if wrong := problems(everything, options.root):
        print("\n".join(wrong))
        return 2
    part, num_parts = map(int, options.part.split("/"))
    chosen = [mutant for mutant in everything if options.only in mutant.file][part - 1 :: num_parts]
    start = time.monotonic()
    if not options.cold:
        _warm_up()
    with copy_of(options.root) as tree:
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        log = tree.parent / "log"
        if run_pytest(tree, tests, limit_s=BASELINE_LIMIT_S, log=log, keeps_compiled=True) != 0:
            print(f"{log.read_text()[-4000:]}\nthe tests fail without any mutant")
            return 2
        print(f"the tests pass without a mutant, {time.monotonic() - start:.0f} s", flush=True)
        fates = run_mutants(
            chosen, tree, limit_s=options.limit_s, say=lambda line: print(line, flush=True)
        )
    print("\n".join(summary(fates)), f"in {(time.monotonic() - start) / 60:.1f} minutes")
    died = sum(fate in ("killed", "hung") for fate in fates.values())
    return 0 if died >= WANTED_SHARE * len(fates) else 3


if __name__ == "__main__":
    sys.exit(main())
