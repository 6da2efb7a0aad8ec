"""Versions are those installed, and a commit is this program's own."""

import subprocess
from pathlib import Path

import pytest
import torch

from smolvlm.train import versions as module
from smolvlm.train.versions import Commit, source_commit, versions


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a package in it; returns the package's folder."""
    folder = tmp_path / "checkout" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    return folder


def test_a_clean_checkout_has_its_commit(checkout: Path) -> None:
    assert source_commit(checkout) == Commit(
        name=git(checkout, "rev-parse", "HEAD"), is_modified=False
    )


@pytest.mark.parametrize("name", ["__init__.py", "added.py"])
def test_a_changed_or_added_file_is_a_modification_and_one_beside_the_package_is_not(
    checkout: Path, name: str
) -> None:
    (checkout.parent / "run.yaml").write_text("beside it")
    assert source_commit(checkout) == Commit(
        name=git(checkout, "rev-parse", "HEAD"), is_modified=False
    )
    (checkout / name).write_text("changed = True")
    found = source_commit(checkout)
    assert found is not None
    assert found.is_modified


def test_a_copy_that_another_projects_checkout_does_not_track_has_no_commit(checkout: Path) -> None:
    installed = checkout.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert source_commit(installed) is None


def test_without_a_checkout_or_without_git_there_is_no_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source_commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_commit(checkout) is None


def test_a_hooks_repository_is_not_taken_for_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = source_commit(checkout)
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert source_commit(checkout) == expected


def test_cuda_is_named_where_it_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Sun Mar 30 2025\nGCC version: "
        "12\n"
    )
    monkeypatch.setattr(module, "_DRIVER_FILE", driver)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    on_cpu, on_cuda = versions(device_type="cpu"), versions(device_type="cuda")
    assert {"python", "smolvlm", "torch", "transformers", "accelerate", "peft"} <= on_cpu.keys()
    assert not {"cuda", "nvidia_driver"} & on_cpu.keys()
    assert (on_cuda["cuda"], on_cuda["nvidia_driver"]) == ("13.0", "570.133.20")
    driver.unlink()
    assert "nvidia_driver" not in versions(device_type="cuda")


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("transformers", "no-such-package"))
    assert "no-such-package" not in versions(device_type="cpu")
    assert "transformers" in versions(device_type="cpu")
