"""Every parameter of every published size belongs to one tower, and freezing goes by it."""

import pytest
import torch

from smolvlm.build.configs import published_config
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.model.towers import TOWERS, parameters_of, tower_of

PARAMETERS = {"256M": 256_484_928, "500M": 507_482_304, "2.2B": 2_246_784_880}


@pytest.mark.parametrize("model_type", ["smolvlm", "idefics3"])
@pytest.mark.parametrize("size", PARAMETERS)
def test_every_parameter_of_the_published_sizes_has_its_tower(size, model_type) -> None:
    with torch.device("meta"):
        model = MODEL_CLASSES[model_type](published_config(size, model_type=model_type))
    counts = {
        tower: sum(value.numel() for _, value in parameters_of(model, tower)) for tower in TOWERS
    }
    assert sum(counts.values()) == PARAMETERS[size]
    assert all(counts.values())
    assert counts["vision_tower"] == sum(
        value.numel() for value in model.model.vision_model.parameters()
    )
    assert counts["connector"] == sum(value.numel() for value in model.model.connector.parameters())


def test_embeddings_and_head_belong_to_the_language_model() -> None:
    assert tower_of("lm_head.weight") == "language_model"
    assert tower_of("model.text_model.embed_tokens.weight") == "language_model"
    assert tower_of("model.connector.modality_projection.proj.weight") == "connector"
    assert tower_of("model.vision_model.post_layernorm.bias") == "vision_tower"


def test_a_name_of_no_tower_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"parameter model\.audio_model\.weight belongs to none of model\.vision"
    ):
        tower_of("model.audio_model.weight")
