"""The nearest legal name."""

import pytest

from smolvlm.config.suggestions import did_you_mean, nearest

NAMES = ("max_tokens_per_pack", "share_media", "output_dir")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("max_token_per_pack", "max_tokens_per_pack"),
        ("MAX-TOKENS-PER-PACK", "max_tokens_per_pack"),
        ("sharemedia", "share_media"),
        ("ouput_dir", "output_dir"),
        ("colour", None),
        ("", None),
    ],
)
def test_nearest(name: str, match: str | None) -> None:
    assert nearest(name, NAMES) == match


@pytest.mark.parametrize(
    ("name", "names", "match"),
    [
        ("lora_alpha", ("r", "alpha", "dropout"), "alpha"),
        ("vision_tower", ("language", "connector", "vision"), "vision"),
        ("vision", ("embeddings", "vision_layers"), "vision_layers"),
        ("dop", ("sft", "dpo"), "dpo"),
        ("lr_rate", ("r", "lr"), None),
    ],
)
def test_words_of_a_name_are_near_it(name: str, names: tuple[str, ...], match: str | None) -> None:
    assert nearest(name, names) == match


def test_did_you_mean() -> None:
    assert did_you_mean("share_medai", NAMES) == "did you mean `share_media`?"
    assert did_you_mean("colour", NAMES) is None
