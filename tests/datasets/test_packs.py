"""What the model reads of a pack."""

import dataclasses

from smolvlm.datasets.packs import MODEL_TENSORS, Pack


def test_model_tensors_are_fields_of_a_pack() -> None:
    names = [field.name for field in dataclasses.fields(Pack)]
    assert set(MODEL_TENSORS) < set(names)
    values = dict.fromkeys(names, None) | {"input_ids": "ids"}
    pack = Pack(**values)  # pyright: ignore[reportArgumentType] - only the names matter
    assert pack.model_tensors() == {name: values[name] for name in MODEL_TENSORS}
