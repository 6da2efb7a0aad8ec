"""The reference computed ahead: each pair's own, whoever computed it, and of no other model."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.plan import PlanSettings, plan_training
from smolvlm.records import Conversation, ImageRef, Turn
from smolvlm.train.methods import reference
from smolvlm.train.methods.reference import (
    FILE_NAME,
    ReferencePass,
    kept_logps,
    reference_logps,
    weights_identity,
)
from tests.memory_rows import measured_rows


@pytest.fixture(scope="module")
def model(checkpoint_folders: dict[ModelType, Path]) -> Any:
    return load_checkpoint(str(checkpoint_folders["smolvlm"])).model


def pair(number: int, *blocks: str | ImageRef) -> Conversation:
    asked = Turn(role="user", blocks=blocks)
    better, worse = f"yes, {number}", f"no, it is not {number} at all"
    return Conversation(
        turns=(asked, Turn(role="assistant", blocks=(better,))),
        rejected=(asked, Turn(role="assistant", blocks=(worse,))),
        where=f"pairs.jsonl:{number}",
        source="pairs",
    )


@pytest.fixture
def rows(photos: dict[str, Path], tmp_path: Path) -> list[Conversation]:
    """Seven pairs, of which the third shows a picture whose pixels are cut short behind a sound
    header."""
    (tmp_path / "cut.png").write_bytes(photos["camera"].read_bytes()[:900])
    asked = [pair(number, f"is {number} even?") for number in range(1, 8)]
    asked[2] = pair(3, ImageRef(path=tmp_path / "cut.png"), "is it?")
    return asked


@pytest.fixture
def packs_of(prompt: PromptSettings) -> Any:
    """Packs of rows, each row in one of them, as many rows in a pack as fit."""

    def make(rows: list[Conversation], *, max_tokens: int = 150) -> PackDataset:
        measured = measured_rows(rows, prompt)
        chosen = PlanSettings(
            budget=Budget(max_tokens=max_tokens, max_tiles=64),
            packs_per_step=1,
            share_media=True,
            max_branches=4,
            seed=0,
        )
        return PackDataset(
            measured,
            plan_training(measured.lengths, chosen),
            encoder=prompt.encoder(),
            settings=prompt.media,
            options=PackOptions(on_bad_sample="skip"),
        )

    return make


def alone(model: Any, packs_of: Any, row: Conversation, folder: Path) -> list[float]:
    """What the model thinks of a pair in a pack of its own."""
    return reference_logps(model, packs_of([row]), folder=folder, identity="")[0].tolist()


def test_each_row_has_its_own_and_a_row_that_cannot_be_decoded_has_none(
    model: Any, packs_of: Any, rows: list[Conversation], tmp_path: Path
) -> None:
    packs = packs_of(rows, max_tokens=900)
    assert len(packs) == 1, "the bad row has neighbours"
    found = reference_logps(model, packs, folder=tmp_path / "run", identity="")
    assert np.isnan(found[2]).all()
    for number in (0, 1, 3, 4, 5, 6):
        assert found[number].tolist() == pytest.approx(
            alone(model, packs_of, rows[number], tmp_path / str(number))
        )
    assert len(set(found[~np.isnan(found)].tolist())) == 12


def test_ranks_share_the_work_and_each_has_the_whole(
    model: Any,
    packs_of: Any,
    rows: list[Conversation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each rank computes its packs; what it lacks comes of gathering, for which the other rank's
    share stands in."""
    texts = [row for row in rows if not row.media]
    packs = packs_of(texts, max_tokens=80)
    assert len(packs) >= 3
    whole = reference_logps(model, packs, folder=tmp_path / "one", identity="")
    shares: list[list[Any]] = []
    monkeypatch.setattr(reference, "gather_object", lambda found: shares.append(found) or found)
    for rank in (0, 1):
        reference_logps(
            model,
            packs,
            folder=tmp_path / f"alone-{rank}",
            identity="",
            settings=ReferencePass(rank=rank, num_ranks=2),
        )
    assert all(shares)
    assert sorted(row for share in shares for row, _, _ in share) == list(range(len(texts)))
    for rank in (0, 1):
        monkeypatch.setattr(
            reference, "gather_object", lambda found, rank=rank: [*found, *shares[1 - rank]]
        )
        folder = tmp_path / f"rank-{rank}"
        found = reference_logps(
            model, packs, folder=folder, identity="", settings=ReferencePass(rank=rank, num_ranks=2)
        )
        np.testing.assert_array_equal(found, whole)
        assert (folder / FILE_NAME).exists() == (rank == 0), "one of them writes it"


def test_what_is_kept_is_read_for_the_same_rows_and_model_alone(
    model: Any, packs_of: Any, rows: list[Conversation], tmp_path: Path
) -> None:
    packs = packs_of(rows)
    made = reference_logps(model, packs, folder=tmp_path, identity="this")
    kept = kept_logps(packs, folder=tmp_path, identity="this")
    assert kept is not None
    np.testing.assert_array_equal(kept, made)
    assert kept_logps(packs, folder=tmp_path, identity="other") is None
    assert kept_logps(packs_of(rows[:6]), folder=tmp_path, identity="this") is None
    assert kept_logps(packs_of([*rows[1:], rows[0]]), folder=tmp_path, identity="this") is None
    assert kept_logps(packs, folder=tmp_path / "elsewhere", identity="this") is None
    texts = [row for row in rows if not row.media]
    reference_logps(model, packs_of(texts), folder=tmp_path / "texts", identity="")
    assert kept_logps(packs_of(texts), folder=tmp_path / "texts", identity="") is not None
    assert kept_logps(packs_of(texts[::-1]), folder=tmp_path / "texts", identity="") is None, (
        "rows of equal lengths"
    )


@pytest.mark.parametrize("damage", [b"", b"\0" * 400, b"no safetensors"])
def test_a_damaged_file_is_made_anew_with_a_word(
    model: Any,
    packs_of: Any,
    rows: list[Conversation],
    tmp_path: Path,
    damage: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    packs = packs_of(rows)
    logps = reference_logps(model, packs, folder=tmp_path, identity="this")
    (tmp_path / FILE_NAME).write_bytes(damage)
    again = reference_logps(model, packs, folder=tmp_path, identity="this")
    np.testing.assert_array_equal(again, logps)
    assert [record.message for record in caplog.records] == [
        f"note: {tmp_path / FILE_NAME} is damaged and is made anew"
    ]
    assert kept_logps(packs, folder=tmp_path, identity="this") is not None


def test_a_model_file_that_is_written_anew_is_another_model(tmp_path: Path) -> None:
    """Also where it is as long as before, as weights of the same model always are."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights one")
    os.utime(path, ns=(10**9, 10**9))
    first = weights_identity(str(tmp_path))
    assert weights_identity(str(tmp_path)) == first
    path.write_bytes(b"weights two")
    os.utime(path, ns=(2 * 10**9, 2 * 10**9))
    second = weights_identity(str(tmp_path))
    path.write_bytes(b"longer weights")
    os.utime(path, ns=(2 * 10**9, 2 * 10**9))
    assert (
        len({first, second, weights_identity(str(tmp_path)), weights_identity("some/model")}) == 4
    )


def test_the_model_judges_without_dropout_and_is_left_as_it_was(
    model: Any, packs_of: Any, rows: list[Conversation], tmp_path: Path
) -> None:
    model.train()
    modes: list[bool] = []
    handle = model.model.text_model.layers[0].register_forward_pre_hook(
        lambda own, _: modes.append(own.training)
    )
    try:
        reference_logps(model, packs_of(rows), folder=tmp_path, identity="")
    finally:
        handle.remove()
    assert set(modes) == {False}
    assert model.training
    assert torch.is_grad_enabled()
