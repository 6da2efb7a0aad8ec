"""What was named is found, or refused with what would do."""

import json
from pathlib import Path

import pytest

from smolvlm.build.configs import PUBLISHED_LANGUAGE_MODELS, PUBLISHED_TOWERS
from smolvlm.build.known_parts import DOWNLOADS, download_of, find_language, find_vision
from smolvlm.errors import ConfigError


def test_every_published_name_is_found_without_weights_and_says_where_they_are() -> None:
    assert DOWNLOADS.keys() == {*PUBLISHED_TOWERS, *PUBLISHED_LANGUAGE_MODELS}
    for name in PUBLISHED_TOWERS:
        assert find_vision(name).dimensions == PUBLISHED_TOWERS[name]
        assert "`vit-s14` comes from the package index" in download_of(name)
    for name in PUBLISHED_LANGUAGE_MODELS:
        part = find_language(name)
        assert part.read is None
        assert "`smollm2-135m-4bit` comes from the package index" in download_of(name)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("siglip2", "the NaFlex variant of SigLIP 2"),
        ("dinov2_with_registers", "a DINOv2 with register tokens"),
        ("clip", "a checkpoint of type clip has no vision tower that fits SmolVLM's vision class"),
        ("llama", "a checkpoint of type llama has no vision tower"),
    ],
)
def test_towers_of_other_kinds_are_refused(tmp_path: Path, model_type: str, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ConfigError) as caught:
        find_vision(str(tmp_path))
    assert message in str(caught.value)
    assert "\n  fix: " in str(caught.value)


def test_what_is_nowhere_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_vision("siglip-base-521")
    assert str(caught.value).startswith(
        "siglip-base-521: no such folder or file, and no name known here\n"
        "  fix: did you mean `siglip-base-512`? names: "
    )
    with pytest.raises(ConfigError, match=r"did you mean `smollm2-135m`\?"):
        find_language("smollm-135m")
    (tmp_path / "a.pt").touch()
    with pytest.raises(ConfigError, match="a file, not a folder"):
        find_vision(str(tmp_path / "a.pt"))


def test_a_folder_of_several_gguf_files_asks_for_one(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(
        ConfigError, match=r"2 GGUF files: a.gguf, b.gguf\n  fix: give the path of one of them"
    ):
        find_language(str(tmp_path))
