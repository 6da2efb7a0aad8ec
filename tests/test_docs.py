"""What the Markdown pages name exists: files, folders, tests, modules that are run, links to pages.

Pages of history may name files that are gone; the commands that they give have to work all the
same.
"""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from smolvlm.cli.early_checks import check_run_file
from smolvlm.cli.main import app
from smolvlm.config.load import load_run_config
from tests.markdown_blocks import fenced

ROOT = Path(__file__).parents[1]
HISTORY = ("docs/results.md", "CHANGELOG.md")
"""Pages that may name what was there when they were written."""
BASES = ("", "smolvlm", "tests")
"""Folders that a path in the text starts from, besides the page's own and those in its table's
row."""
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
_ENDINGS = "py|md|yaml|yml|toml|txt|html|svg|cff|json|jsonl|sh"
_FILE = re.compile(rf"^[\w./-]+\.(?:{_ENDINGS})$")
_FOLDER = re.compile(r"^\.?[a-z_]+(?:/[\w.-]+)*/$")
_TEST = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+))?")
_MODULE = re.compile(r"python3? -m ((?:benchmarks|experiments|fuzz|gpu_check)(?:\.\w+)*)")
_NAME_IN = re.compile(r"`(\w+)`\s+(?:in|of)\s+`((?:smolvlm|scripts|tests)/[\w/]+\.py)`")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
WRITTEN_BY_RUNS = frozenset(
    {
        *(
            "config.json",
            "smolvlm.json",
            "run.json",
            "run.yaml",
            "report.html",
            "page.html",
            "look.html",
        ),
        *(
            "metrics.jsonl",
            "samples.jsonl",
            "ranks.jsonl",
            "metrics.prom",
            "cpu_choices.json",
            "predictions.jsonl",
            "predictions-before.jsonl",
            "answers.jsonl",
            "baselines.json",
            "trainer_state.json",
        ),
        *("build/sbom.json", "build/licences.md"),
        *(
            "tokenizer.json",
            "tokenizer_config.json",
            "preprocessor_config.json",
            "chat_template.json",
            "processor_config.json",
        ),
        *("adapter_config.json", "special_tokens_map.json", "video_preprocessor_config.json"),
        *("vocab.json", "added_tokens.json", "gpu_check.jsonl", "table.txt"),
        *("plan.json", "machine.json", "proof.json"),
    }
)
"""What stands in checkpoints and output folders, and never in the repository."""
EXAMPLES = ("my/", "runs/", "frames/", "0001.", "gpu_check/wheels/")
"""Beginnings of names that stand for a reader's own files, or for what a command makes."""


def listed_files() -> frozenset[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return frozenset(name for name in listed.stdout.splitlines() if (ROOT / name).exists())


@pytest.fixture(scope="module")
def files() -> frozenset[str]:
    return listed_files()


def missing_files(text: str, *, page: str, files: frozenset[str]) -> list[str]:
    """Return the files and folders of the repository that a page names in backticks and that are
    not there."""
    folders = {folder.as_posix() for name in files for folder in Path(name).parents}
    plain = _FENCE.sub("", text)
    missing = []
    for line in plain.splitlines():
        named = [
            word
            for word in map(str.strip, _CODE.findall(line))
            if _FILE.match(word) or _FOLDER.match(word)
        ]
        rooms = [
            word for word in named if word.endswith("/")
        ]  # a row of a table names a room and files in it
        for word in named:
            if word in WRITTEN_BY_RUNS or word.startswith(EXAMPLES):
                continue
            starts = [Path(base) for base in (*BASES, Path(page).parent)]
            starts += [start / room for start in starts for room in rooms] + [
                *map(Path, paths_of(line))
            ]
            if not any(_normal(start / word) in (files | folders) for start in starts):
                missing.append(word)
    return missing


def paths_of(line: str) -> list[str]:
    """Return the folders of the files that a line names by their whole path; their neighbours are
    named by name."""
    return [
        str(Path(word).parent) for word in _CODE.findall(line) if "/" in word and _FILE.match(word)
    ]


def _normal(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


_SOURCE = re.compile(r"\b(?:src|srcset)=\"([^\":]+)\"")
"""A picture's file, in a page's HTML."""
FORGE = "../../actions/workflows/"
"""Where a link of the README leads that the forge makes: to its page of a workflow."""


def missing_links(text: str, *, page: str, files: frozenset[str]) -> list[str]:
    """Return the files that a page links to and that are not there; addresses are left alone."""
    text = text.replace(FORGE, ".github/workflows/").replace(".yml/badge.svg", ".yml")
    targets = [target for target, _ in _LINK.findall(_FENCE.sub("", text)) if "://" not in target]
    targets += _SOURCE.findall(text)
    return [target for target in targets if _normal(Path(page).parent / target) not in files]


def missing_commands(text: str) -> list[str]:
    """Return the tests and the modules of this repository that a page tells to run and that are not
    there."""
    missing = []
    for file, test in _TEST.findall(text):
        path = ROOT / file
        if not path.is_file() or (test and f"def {test}(" not in path.read_text(encoding="utf-8")):
            missing.append(f"{file}::{test}" if test else file)
    for module in _MODULE.findall(text):
        path = ROOT / module.replace(".", "/")
        if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
            missing.append(module)
    return missing


def missing_names(text: str) -> list[str]:
    """Return each "`name` in `file.py`" of a page whose file does not hold the name."""
    missing = []
    for name, file in _NAME_IN.findall(text):
        path = ROOT / file
        if not path.is_file() or not re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")):
            missing.append(f"{name} in {file}")
    return missing


PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "gpu_check/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY])
def test_named_files_exist(page: str, files: frozenset[str]) -> None:
    assert missing_files((ROOT / page).read_text(encoding="utf-8"), page=page, files=files) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str, files: frozenset[str]) -> None:
    assert missing_links((ROOT / page).read_text(encoding="utf-8"), page=page, files=files) == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_what_is_there(page: str) -> None:
    assert missing_commands((ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY])
def test_names_are_in_the_files_that_are_said_to_hold_them(page: str) -> None:
    assert missing_names((ROOT / page).read_text(encoding="utf-8")) == []


def unheld_promises(text: str) -> list[str]:
    """Return the promises of a page's tables that name no test: a row `| promise | held by |`."""
    unheld, is_promise = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            is_promise = False
        elif cells == ["promise", "held by"]:
            is_promise = True
        elif is_promise and not line.startswith("|---") and len(cells) > 1:
            is_held = _TEST.search(cells[-1]) or cells[-1] == "the same"
            unheld += [] if is_held else [cells[0]]
    return unheld


def test_every_promise_names_the_test_that_holds_it() -> None:
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    assert text.count("| promise | held by |") >= 6
    assert unheld_promises(text) == []


def test_which_promises_are_unheld() -> None:
    head = "| promise | held by |\n|---|---|\n"
    rows = "| a | `tests/test_docs.py` |\n| b | the same |\n| c | a person |\n"
    assert unheld_promises(f"{head}{rows}\n| d | no promise |") == ["c"]


def test_the_page_on_reports_is_short_and_leads_to_the_promises() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 45
    assert "](docs/security.md)" in text
    assert not _TEST.search(text), "tests are named in one place"


def test_every_term_of_the_glossary_is_there_once() -> None:
    terms = re.findall(
        r"^- \*\*(.+?)\*\*(?: \((.+?)\))?",
        (ROOT / "docs/glossary.md").read_text(encoding="utf-8"),
        re.M,
    )
    assert len(terms) > 50
    assert len({*terms}) == len(terms)


def test_the_pages_are_found() -> None:
    assert {
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/glossary.md",
        "docs/decisions/README.md",
    } <= {*PAGES}


FILES = frozenset({"smolvlm/train/loop.py", "docs/a.md", "docs/b.md", "Makefile"})


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`smolvlm/train/loop.py`, `train/loop.py`, `train/`, `docs/a.md`, `b.md`", []),
        ("| `train/` | `loop.py`, `gone.py` |", ["gone.py"]),
        ("`train/loop.py`, and `gone.py` beside it", ["gone.py"]),
        ("`train/gone.py` and `tests/gone/`", ["train/gone.py", "tests/gone/"]),
        ("`my/run.yaml`, `runs/first/`, `config.json`, `RUN.yaml train`, `data.fps`, `a/b`", []),
        ("```\n`gone.py`\n```", []),
    ],
)
def test_what_is_missing(text: str, missing: list[str]) -> None:
    assert missing_files(text, page="docs/a.md", files=FILES) == missing


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("[a](b.md), [b](b.md#part), [up](../Makefile), [out](https://a.b/c.md)", []),
        ("[a](gone.md) and ![x](figures/gone.svg)", ["gone.md", "figures/gone.svg"]),
    ],
)
def test_which_links_are_missing(text: str, missing: list[str]) -> None:
    assert missing_links(text, page="docs/a.md", files=FILES) == missing


def test_which_commands_are_missing() -> None:
    text = """
        pytest tests/test_docs.py, `tests/test_docs.py::test_what_is_missing`,
        `python -m benchmarks.peers`,
        `python -m gpu_check --out x`,
        `tests/gone.py::test_a`, tests/test_docs.py::test_gone, python -m benchmarks.gone
    """
    missing = ["tests/gone.py::test_a", "tests/test_docs.py::test_gone", "benchmarks.gone"]
    assert missing_commands(text) == missing


def test_which_names_are_missing() -> None:
    text = (
        "`missing_names` in `tests/test_docs.py`, `no_such`\nin `tests/gone.py`, `Pack` of "
        "`smolvlm/home.py`"
    )
    assert missing_names(text) == ["no_such in tests/gone.py", "Pack in smolvlm/home.py"]


LANGUAGES = ("bash", "console", "json", "jsonl", "python", "text", "yaml", "toml", "")


@pytest.mark.parametrize("page", PAGES)
def test_fenced_blocks_are_what_they_say(page: str) -> None:
    """A paragraph's line breaks mean nothing, a block's everything."""
    for language, block in fenced((ROOT / page).read_text(encoding="utf-8")):
        assert language in LANGUAGES, f"{page}: a fence with words behind it: {language!r}"
        match language:
            case "yaml":
                yaml.safe_load(block)
            case "json":
                json.loads(block if block.lstrip().startswith("{") else f"{{{block}}}")
            case "jsonl":
                for line in block.splitlines():
                    json.loads(line)
            case "python":
                compile(block, page, "exec")


def test_the_readmes_run_file_is_one(tmp_path: Path) -> None:
    """As a reader would paste it, beside the rows that it names."""
    (block,) = [
        text
        for language, text in fenced((ROOT / "README.md").read_text(encoding="utf-8"))
        if language == "yaml"
    ]
    (tmp_path / "run.yaml").write_text(block)
    for name in ("train.jsonl", "eval.jsonl"):
        (tmp_path / name).write_text('{"question": "What?", "answer": "That."}\n')
    config = load_run_config(tmp_path / "run.yaml")
    assert config.train.packs_per_step == 4
    assert config.rate_of("vision") == 0
    check_run_file(tmp_path / "run.yaml", [])


def test_the_readmes_commands_are_commands() -> None:
    (block,) = [
        text
        for language, text in fenced((ROOT / "README.md").read_text(encoding="utf-8"))
        if language == "bash"
    ]
    names = {
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback is not None
    }
    for line in block.splitlines():
        program, name, *_ = shlex.split(line, comments=True)
        assert (program, name in names) == ("smolvlm", True), line


def test_a_reflowed_block_is_found() -> None:
    assert fenced("```yaml a: 1\nb: 2\n```\n") == [("yaml a: 1", "b: 2")]
    assert fenced("  ```bash\n  ls\n  ```\n") == [("bash", "ls")]
    assert fenced("```\nls ```\n")[-1][0] == "never closed"
