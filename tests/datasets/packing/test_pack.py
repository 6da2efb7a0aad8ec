"""What the model reads of a pack."""

from collections.abc import Callable
from pathlib import Path

from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.pack import MODEL_TENSORS
from smolvlm.records import Conversation


def test_the_model_reads_a_packs_own_tensors(
    asks: Callable[..., Conversation], dataset_of: Callable[..., PackDataset], photos: dict[str, Path]
) -> None:
    pack = dataset_of([asks(1, photos["rocket"], "What?")], [(0,)])[0]
    tensors = pack.model_tensors()
    assert tuple(tensors) == MODEL_TENSORS
    assert all(tensors[name] is getattr(pack, name) for name in MODEL_TENSORS)
