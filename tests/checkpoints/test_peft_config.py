from smolvlm.checkpoints.peft_config import peft_config, saved_config
from smolvlm.config.adapters import AdapterConfig

LAYERS = ["model.text_model.layers.0.mlp.up_proj", "model.connector.modality_projection.proj"]


def test_towers_that_agree_need_no_patterns() -> None:
    adapters = {"language_model": AdapterConfig(r=4), "connector": AdapterConfig(r=4)}
    config = peft_config(adapters, LAYERS, {}, base="base", is_resumed=False)
    assert (config.r, config.rank_pattern, config.alpha_pattern) == (4, {}, {})
    assert config.base_model_name_or_path == "base"


def test_towers_that_differ_have_their_ranks_and_alphas_by_name() -> None:
    adapters = {
        "language_model": AdapterConfig(r=4, alpha=8.0),
        "connector": AdapterConfig(r=2, alpha=0.5),
    }
    config = peft_config(adapters, LAYERS, {}, base="", is_resumed=False)
    assert list(config.rank_pattern.values()) == [4, 2]
    assert [repr(alpha) for alpha in config.alpha_pattern.values()] == ["8", "0.5"]


def test_a_doubled_copy_has_twice_the_rank_and_the_original_stays() -> None:
    adapters = {"connector": AdapterConfig(type="pissa", r=3, alpha=6.0)}
    config = peft_config(adapters, LAYERS[1:], {}, base="", is_resumed=False)
    saved = saved_config(config, whole=["vision_tower"], doubled=True)
    assert (saved.r, saved.lora_alpha, saved.modules_to_save) == (6, 12, ["vision_model"])
    assert (config.r, config.lora_alpha, config.modules_to_save) == (3, 6, None)
