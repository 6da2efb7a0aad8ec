"""The files that tools read: CI, hooks, forms, citation, what the package ships."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.yaml_text import read_yaml

ROOT = Path(__file__).parents[1]
FORMS = sorted(
    path
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")
    if path.name != "config.yml"
)
ELEMENTS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_ci_runs_the_one_command_on_the_oldest_python(project: dict[str, Any]) -> None:
    steps = read_yaml(ROOT / ".github/workflows/ci.yml")["jobs"]["run"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    versions = [
        step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")
    ]
    assert project["project"]["requires-python"] == f">={versions[0]}"


def test_hooks_fetch_nothing_and_name_what_is_there() -> None:
    repos = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    for hook in repos[0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
        scripts = [word for word in hook["entry"].split() if word.endswith(".py")]
        assert all((ROOT / script).is_file() for script in scripts)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_have_what_a_form_needs(path: Path) -> None:
    form = read_yaml(path)
    assert form.keys() >= {"name", "description", "body"}
    elements = form["body"]
    assert {element["type"] for element in elements} <= ELEMENTS
    asked = [element for element in elements if element["type"] != "markdown"]
    assert len({element["id"] for element in asked}) == len(asked) > 0
    assert all(element["attributes"]["label"] for element in asked)


def test_the_three_forms_are_there() -> None:
    assert [path.stem for path in FORMS] == ["bug", "feature", "rows"]


def test_the_citation_is_of_this_version_and_license(project: dict[str, Any]) -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert citation["version"] == project["project"]["version"]
    assert citation["license"] == project["project"]["license"]


def test_the_files_of_the_package_are_there(project: dict[str, Any]) -> None:
    data = project["tool"]["setuptools"]["package-data"]
    assert "py.typed" in data["smolvlm"]
    for package, patterns in data.items():
        for pattern in patterns:
            assert list((ROOT / package.replace(".", "/")).glob(pattern)), f"{package}: {pattern}"
