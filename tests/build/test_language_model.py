"""SmolLM2's weights under the stock class's names: shapes, the order of rotary rows, and sensible
text."""

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from smolvlm.build.configs import build_config
from smolvlm.build.language_model import (
    _halves_from_pairs,
    extend_vocabulary,
    language_dimensions,
    read_language_model,
)
from smolvlm.build.sources import language_model_gguf
from smolvlm.build.tokenizer import tokenizer_json
from smolvlm.build.vit_s14_tower import vision_dimensions


def test_rotary_rows_move_from_pairs_to_halves() -> None:
    weight = torch.arange(12.0)[:, None]
    moved = _halves_from_pairs(weight, num_heads=2)[:, 0].tolist()
    assert moved == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


def test_new_rows_follow_the_old_ones_and_their_spread() -> None:
    old = torch.randn(49_152, 16, generator=torch.Generator().manual_seed(1)) * 0.1 + 0.5
    extended = extend_vocabulary(old, generator=torch.Generator().manual_seed(0))
    again = extend_vocabulary(old, generator=torch.Generator().manual_seed(0))
    assert extended.shape == (49_280, 16)
    assert torch.equal(extended[:49_152], old)
    assert torch.equal(extended, again)
    new = extended[49_152:]
    assert abs(new.mean().item() - 0.5) < 0.01
    assert abs(new.std().item() - 0.1) < 0.01
    assert new.unique(dim=0).shape == new.shape


@pytest.mark.parametrize("num_layers", [0, 31])
def test_layers_that_it_does_not_have_are_refused(num_layers: int) -> None:
    with pytest.raises(ValueError, match=f"num_layers={num_layers} is not 1 to 30"):
        language_dimensions(num_layers=num_layers)


@pytest.mark.slow
def test_the_whole_model_talks_sense() -> None:
    dimensions = vision_dimensions(tile_side_px=28, num_layers=1)
    config = build_config(
        dimensions, language_dimensions(num_layers=30), scale_factor=1, model_type="smolvlm"
    )
    text_config = config.text_config
    assert isinstance(text_config, LlamaConfig)
    state = read_language_model(language_model_gguf(), num_layers=30)
    embeddings = extend_vocabulary(
        state["embed_tokens.weight"], generator=torch.Generator().manual_seed(0)
    )
    model = LlamaForCausalLM(text_config).eval()
    model.model.load_state_dict({**state, "embed_tokens.weight": embeddings})
    model.lm_head.load_state_dict({"weight": embeddings})
    tokenizer = Tokenizer.from_str(tokenizer_json())
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    answer = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
    )
    assert "The capital of France is Paris." in tokenizer.decode(answer[0, ids.shape[1] :].tolist())
