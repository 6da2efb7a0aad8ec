"""The image: what it copies is there and is let through, and the extras that it installs exist.

What hadolint says of it is part of `make lint`; a forge builds it.
"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
COPIED = [
    source
    for line in TEXT.splitlines()
    if line.startswith("COPY ") and "--from=" not in line
    for source in line.split()[1:-1]
]


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_is_there_and_let_through(source: str) -> None:
    assert (ROOT / source).exists()
    assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_wheel_is_made_of_what_its_project_file_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {"pyproject.toml", "smolvlm", project["readme"], *project["license-files"]}
    assert needed <= set(COPIED)


def test_its_extras_exist() -> None:
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", TEXT, flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_its_python_is_one_that_the_project_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    versions = re.findall(r"^FROM python:(\d+)\.(\d+)-", TEXT, flags=re.MULTILINE)
    assert versions
    assert all((int(major), int(minor)) >= least for major, minor in versions)
