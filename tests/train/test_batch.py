"""What a loader hands over: a pack's tensors with what is counted of it, or an error without a
worker's traceback."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import send_to_device
from torch._utils import ExceptionWrapper
from torch.utils.data._utils.pin_memory import pin_memory

from smolvlm.datasets.packing.context_share import ContextCut
from smolvlm.datasets.packing.pack import MODEL_TENSORS, Pack
from smolvlm.errors import SampleError
from smolvlm.model.attention.flex import plan_flex
from smolvlm.model.attention.flex_rectangle import plan_flex_rectangle
from smolvlm.train.batch import as_batch, without_worker_traceback
from tests.packs import pack_of


def pack(*, num_tokens: int, where: tuple[str, ...], num_cached: int) -> Pack:
    places = torch.arange(num_tokens)
    return pack_of(
        input_ids=places,
        position_ids=places,
        scope_end=torch.full((num_tokens,), num_tokens),
        attention=plan_flex(np.full(num_tokens, num_tokens)),
        image_places=places[:1],
        predict_from=places[:2],
        target_ids=places[:2],
        target_weights=torch.tensor([0.5, 0.25])[: len(places)],
        target_sources=places[:2] * 0,
        target_groups=places[:2] * 0,
        group_sizes=torch.tensor([2])[: len(places[1:2])],
        tiles=torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        tile_keys=(b"key",),
        cached_features=torch.zeros(num_cached, 4, 8) if num_cached else None,
        slot_tiles=torch.arange(1 + num_cached),
        where=where,
        budget_tokens=16,
    )


def test_a_batch_is_one_pack_with_its_counts() -> None:
    own = pack(num_tokens=9, where=("rows.jsonl:1",), num_cached=2)
    batch = as_batch([own])
    assert tuple(batch["pack"]) == MODEL_TENSORS
    assert batch["pack"]["input_ids"] is own.input_ids
    info = batch["info"]
    assert (info.num_tokens, info.budget_tokens, info.num_supervised_tokens) == (9, 16, 2)
    assert info.target_weight == pytest.approx(0.75)
    assert (info.num_tiles, info.num_computed_tiles, info.tile_keys) == (3, 1, (b"key",))
    assert info.rows == info.where == ("rows.jsonl:1",)


def test_each_rank_that_holds_a_pack_knows_its_rows() -> None:
    shared = replace(
        pack(num_tokens=9, where=(), num_cached=0), shared_where=("rows.jsonl:1", "rows.jsonl:2")
    )
    info = as_batch([shared])["info"]
    assert (info.where, info.rows) == ((), ("rows.jsonl:1", "rows.jsonl:2"))


def test_a_pack_without_rows_fills_nothing() -> None:
    info = as_batch([pack(num_tokens=1, where=(), num_cached=0)])["info"]
    assert (info.num_tokens, info.budget_tokens) == (0, 0)


def test_packs_are_never_stacked() -> None:
    own = pack(num_tokens=9, where=(), num_cached=0)
    with pytest.raises(ValueError, match="unpack"):
        as_batch([own, own])


@pytest.mark.parametrize("num_cached", [0, 2])
def test_every_tensor_of_a_batch_is_pinned_and_nothing_else_is_touched(
    num_cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch pins what lies in containers that it knows, and passes over any other object without a
    word."""
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    batch = as_batch([pack(num_tokens=9, where=("rows.jsonl:1",), num_cached=num_cached)])
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    moved = pin_memory(batch)
    found = [value for value in moved["pack"].values() if isinstance(value, torch.Tensor)]
    found += moved["pack"]["attention"].tensors()
    assert {id(tensor) for tensor in found} == {id(own) for own in pinned}
    num_none = (num_cached == 0) + 3  # no reference here, no averaged frames, no other rank's part
    assert len(pinned) == len(MODEL_TENSORS) - num_none - 1 + 2, (
        "the attention plan's two in its place"
    )
    assert moved["info"] is batch["info"]


def test_a_batch_is_copied_without_waiting_whatever_accelerate_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after `skip_first_batches`, of a batch that torch has pinned."""
    batch = as_batch([pack(num_tokens=9, where=("rows.jsonl:1",), num_cached=2)])
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    pinned = pin_memory(batch)
    asked: list[bool] = []
    stock = torch.Tensor.to

    def to(
        tensor: torch.Tensor, *args: Any, non_blocking: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        asked.append(non_blocking)
        return stock(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", to)
    moved = send_to_device(pinned, torch.device("meta"), non_blocking=False)
    assert len(asked) == len(MODEL_TENSORS) - 3 - 1 + 2
    assert all(asked)
    found = [value for value in moved["pack"].values() if isinstance(value, torch.Tensor)]
    assert {value.device.type for value in (*found, *moved["pack"]["attention"].tensors())} == {
        "meta"
    }
    assert moved["info"] is batch["info"]


def test_a_share_of_a_pack_is_pinned_and_copied_with_all_that_it_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = pack(num_tokens=9, where=("rows.jsonl:1",), num_cached=2)
    cut = ContextCut(rank=1, num_ranks=2, plan_rectangle=plan_flex_rectangle)
    batch = as_batch([cut(own)])
    assert batch["info"].num_tokens == len(batch["pack"]["input_ids"]) == 4
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    moved = pin_memory(batch)
    context = moved["pack"]["context"]
    found = [value for value in moved["pack"].values() if isinstance(value, torch.Tensor)]
    assert {id(tensor) for tensor in (*found, *context.tensors())} == {id(t) for t in pinned}
    sent = send_to_device(moved, torch.device("meta"), non_blocking=False)
    assert len(sent["pack"]["context"].tensors()) == len(context.tensors()) == 14
    assert {value.device.type for value in sent["pack"]["context"].tensors()} == {"meta"}


def test_an_error_out_of_a_worker_is_told_as_it_was_raised() -> None:
    raised = SampleError("cut off", where="rows.jsonl:3", fix="replace the file")
    try:
        raise raised
    except SampleError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(SampleError, match="Traceback") as caught:
        wrapped.reraise()
    assert (
        str(without_worker_traceback(caught.value))
        == "rows.jsonl:3: cut off\n  fix: replace the file"
    )
    assert without_worker_traceback(raised) is raised
