"""Tokens by the released rules, and how seconds are taken beyond what was measured."""

import pytest
from transformers import Qwen2VLForConditionalGeneration

from benchmarks.versus_qwen2vl import (
    LARGEST_PX,
    PICTURE_PX,
    QWEN_LAYERS,
    Costs,
    fitted,
    qwen_config,
    qwen_tokens,
    smolvlm_tokens,
    table,
)


def test_pictures_cost_what_the_released_rules_say() -> None:
    assert qwen_tokens(PICTURE_PX) == (3025, 12_100)
    assert qwen_tokens(LARGEST_PX) == (16_384, 65_536)
    assert max(qwen_tokens(side_px)[0] for side_px in range(3000, 10_000, 100)) <= 16_384
    tokens, tiles = smolvlm_tokens("2.2B", PICTURE_PX)
    assert tiles == 17
    assert 17 * 81 <= tokens <= 17 * 81 + 60
    tokens, tiles = smolvlm_tokens("256M", PICTURE_PX)
    assert tiles == 17
    assert 17 * 64 <= tokens <= 17 * 64 + 60


def test_the_peer_has_its_published_number_of_parameters() -> None:
    import torch

    with torch.device("meta"):
        one, two = (Qwen2VLForConditionalGeneration(qwen_config(layers)) for layers in (1, 2))

    def size(model: torch.nn.Module) -> int:
        return sum(value.numel() for value in model.parameters())

    def parts(model: Qwen2VLForConditionalGeneration) -> tuple[int, int]:
        return size(model.model.visual), size(model.model.language_model)

    (tower, language), (more_tower, more_language) = parts(one), parts(two)
    tower_layers, language_layers = QWEN_LAYERS
    tower += (tower_layers - 1) * (more_tower - tower)
    language += (language_layers - 1) * (more_language - language)
    assert tower + language == 2_208_985_600
    assert size(one) == sum(parts(one))  # the head is tied


def test_a_fit_finds_both_terms_and_no_negative_one() -> None:
    counts = (100, 200, 400)
    growth = fitted(counts, [2 * n + 0.5 * n**2 for n in counts], rest_s=8.0, total=3)
    assert growth.per_token_s == pytest.approx(2)
    assert growth.per_pair_s == pytest.approx(0.5)
    assert growth.seconds(800) == pytest.approx(3 * (1600 + 320_000) + 16)
    falling = fitted(counts, [n**0.5 for n in counts], rest_s=0.0, total=1)
    assert falling.per_pair_s == 0
    assert falling.per_token_s > 0
    with pytest.raises(RuntimeError, match="too busy"):
        fitted(counts, [1.0, 0.0, 1.0], rest_s=0.0, total=1)


def test_ratios_are_to_each_row_of_the_peer() -> None:
    def costs(name: str, tokens: int, seconds: float, rate: float) -> Costs:
        return Costs(
            name=name,
            picture_px=1536,
            num_tokens=tokens,
            tower_s=seconds / 2,
            language_s=seconds / 2,
            tokens_per_s=rate,
            cache_mb=1.0,
            is_extrapolated=tokens == 16_384,
        )

    peers = [costs("Qwen2-VL-2B", 3025, 8.0, 2.0), costs("Qwen2-VL-2B", 16_384, 32.0, 1.0)]
    lines = table([costs("SmolVLM 2.2B", 1400, 2.0, 6.0), *peers]).splitlines()
    assert lines[2].endswith("| 2.0 | 6.0 | 1 | 4.0x | 16.0x | 3.0x | 6.0x |")
    assert "32.0 (extrapolated)" in lines[4]
