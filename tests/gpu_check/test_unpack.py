"""Wheels: those of this Python are unpacked, and two versions of one package are refused."""

import zipfile
from pathlib import Path

from gpu_check.stages.install import check_packages
from gpu_check.unpack import unpack_wheels


def write_wheel(folder: Path, version: str, tag: str = "py3-none-any") -> None:
    name = f"toy-{version}"
    record = f"{name}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{tag}.whl", "w") as archive:
        archive.writestr("toy.py", f"VERSION = '{version}'\n")
        archive.writestr(
            f"{record}/METADATA", f"Metadata-Version: 2.1\nName: toy\nVersion: {version}\n"
        )
        archive.writestr(
            f"{record}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
        )
        archive.writestr(f"{record}/RECORD", "")


def test_wheels_are_unpacked_and_those_of_another_python_left_out(tmp_path: Path) -> None:
    write_wheel(tmp_path, "1.0")
    write_wheel(tmp_path, "1.1", "cp27-none-any")
    outcome = unpack_wheels(tmp_path, tmp_path / "site", limit_s=60)
    assert outcome.status == "passed", outcome.error
    assert outcome.figures == {"unpacked": "toy 1.0", "not for this Python": "toy 1.1"}
    assert (tmp_path / "site" / "toy.py").read_text() == "VERSION = '1.0'\n"


def test_two_versions_of_one_package_are_refused(tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        write_wheel(tmp_path, version)
    outcome = unpack_wheels(tmp_path, tmp_path / "site", limit_s=60)
    assert outcome.status == "failed"
    assert outcome.error.startswith("two versions of toy in ")


def test_no_wheels_are_no_failure(tmp_path: Path) -> None:
    assert unpack_wheels(tmp_path, tmp_path / "site", limit_s=60).status == "skipped"


def test_a_broken_wheel_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy-1.0-py3-none-any.whl").write_bytes(b"no archive")
    outcome = unpack_wheels(tmp_path, tmp_path / "site", limit_s=60)
    assert outcome.status == "failed"
    assert "toy" in outcome.error


def test_missing_and_old_packages_are_named(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\ndependencies = ["av>=999", "nobody-has-this>=1", "pytest>=999", "numpy>=1"]\n'
    )
    found, problems = check_packages(project)
    assert found["nobody-has-this"] == "missing"
    assert len(problems) == 2 + (found["av"] != "missing")
    assert "nobody-has-this is missing: put its wheel into the wheels folder" in problems
    assert any(
        problem.startswith("pytest ") and ">=999 is needed" in problem for problem in problems
    )
