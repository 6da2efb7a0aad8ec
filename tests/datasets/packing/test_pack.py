"""A pack's fields are the one list of what it holds."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch

from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.pack import BYTES_PER_TOKEN, MODEL_TENSORS
from smolvlm.records import Conversation
from tests.packs import pack_of


def test_the_model_reads_a_packs_own_tensors(
    asks: Callable[..., Conversation],
    dataset_of: Callable[..., PackDataset],
    photos: dict[str, Path],
) -> None:
    pack = dataset_of([asks(1, photos["rocket"], "What?")], [(0,)])[0]
    tensors = pack.model_tensors()
    assert tuple(tensors) == MODEL_TENSORS
    assert all(tensors[name] is getattr(pack, name) for name in MODEL_TENSORS)


def test_every_tensor_of_a_pack_is_of_the_type_that_its_field_names(
    asks: Callable[..., Conversation],
    dataset_of: Callable[..., PackDataset],
    photos: dict[str, Path],
) -> None:
    pack = dataset_of([asks(1, photos["rocket"], "What?")], [(0,)])[0]
    for field in fields(pack):
        value = getattr(pack, field.name)
        assert not isinstance(value, torch.Tensor) or isinstance(value, field.type), field.name


def test_a_token_never_takes_more_than_it_is_planned_with() -> None:
    """Each of three tokens is a target and an answer by itself."""
    three, logps = torch.arange(3), torch.zeros(3)
    along_tokens = dict.fromkeys(("input_ids", "position_ids", "scope_end"), three)
    along_targets = dict.fromkeys(
        ("predict_from", "target_ids", "target_sources", "target_groups"), three
    )
    groups = {"group_sizes": three, "reference_logps": logps}
    pack = pack_of(**along_tokens, **along_targets, **groups, target_weights=logps)
    found = [getattr(pack, field.name) for field in fields(pack)]
    tensors = [value for value in found if isinstance(value, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in tensors) <= 3 * BYTES_PER_TOKEN
