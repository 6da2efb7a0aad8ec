"""The first release gains the tags of cut pictures: single ids, rows of means, everything else to
the bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.build.configs import published_config
from smolvlm.build.grow_vocabulary import INDEX
from smolvlm.build.upgrade_tags import TAGS, add_tokens, upgrade_tags
from smolvlm.checkpoints.load import load_checkpoint, load_processor
from smolvlm.checkpoints.new_tokens import first_rows
from smolvlm.checkpoints.vocabulary import Wanted, place_tokens
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.errors import ConfigError
from tests.first_release import FIRST, VOCABULARY, first_release

MATRICES = ("model.text_model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture(scope="module")
def old(checkpoint_folders: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_release(
        checkpoint_folders["smolvlm"], tmp_path_factory.mktemp("old") / "model", num_shards=3
    )


@pytest.fixture(scope="module")
def upgraded(old: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("new") / "model"
    return folder, upgrade_tags(str(old), folder)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: value
        for file in folder.glob("*.safetensors")
        for name, value in load_file(file).items()
    }


def test_the_report_says_what_was_done_and_what_must_be_trained(upgraded: tuple[Path, Any]) -> None:
    _, report = upgraded
    assert (report.num_tags, report.pieces_before) == (37, (5, 9))
    assert (report.vocabulary_before, report.vocabulary_after) == (VOCABULARY, VOCABULARY + 37)
    assert report.num_new_parameters == 2 * 37 * 64
    assert "vocabulary 49,155 -> 49,192" in str(report)
    assert 'trainable_tokens: ["<global-img>", "<row_*>"]' in str(report)


def test_the_prompt_of_a_cut_picture_is_made_of_single_ids(
    upgraded: tuple[Path, Any], old: Path
) -> None:
    folder, _ = upgraded
    before, after = (read_prompt_settings(load_processor(str(own))) for own in (old, folder))
    assert (before.missing_tags, after.missing_tags) == (True, False)
    assert after.tokens.global_view == (VOCABULARY,)
    assert list(after.tokens.row_column.values()) == [
        (VOCABULARY + 1 + number,) for number in range(36)
    ]
    assert (after.tokens.image, after.tokens.end_of_turn) == (
        before.tokens.image,
        before.tokens.end_of_turn,
    )
    processor: Any = AutoProcessor.from_pretrained(folder)
    picture = Image.linear_gradient("L").resize((128, 64)).convert("RGB")
    ids = processor(text="<image>What?", images=[[picture]])["input_ids"][0]
    assert [own for own in ids if own >= VOCABULARY] == [
        VOCABULARY + 1 + 6 * row + column for row in range(2) for column in range(4)
    ] + [VOCABULARY]
    assert processor.tokenizer.decode(ids, skip_special_tokens=True).strip() == "What?"
    literal = after.text("<row_1_col_1>")[0]
    assert len(literal) == 9, "in a user's words it stays text"


def test_rows_are_means_of_pieces_no_two_alike_and_all_else_keeps_its_bits(
    upgraded: tuple[Path, Any], old: Path
) -> None:
    folder, _ = upgraded
    before, after = tensors(old), tensors(folder)
    text = load_processor(str(old)).tokenizer
    assert before.keys() == after.keys()
    assert [
        name
        for name, value in before.items()
        if name not in MATRICES and not torch.equal(after[name], value)
    ] == []
    for name in MATRICES:
        assert torch.equal(after[name][:VOCABULARY], before[name])
        rows = after[name][VOCABULARY:]
        means = torch.stack(
            [
                before[name][text(tag, add_special_tokens=False)["input_ids"]].mean(dim=0)
                for tag in TAGS
            ]
        )
        assert ((rows - means).norm(dim=1) / means.norm(dim=1)).max() < 0.3
        gaps = torch.cdist(rows, rows) + torch.eye(37)
        assert gaps.min() > 1e-3
        alike = [TAGS.index("<row_1_col_2>"), TAGS.index("<row_2_col_1>")]
        assert (means[alike[0]] - means[alike[1]]).abs().max() < 1e-6
        assert torch.allclose(rows[alike[0]], means[alike[0]])
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(
        value.numel() * value.element_size() for value in after.values()
    )


def test_plain_transformers_answers_as_before_where_no_tag_stands(
    upgraded: tuple[Path, Any], old: Path
) -> None:
    ids = torch.tensor([[1, *range(100, 140), FIRST]])
    ours, theirs = (
        AutoModelForImageTextToText.from_pretrained(own, dtype=torch.float32)(input_ids=ids).logits
        for own in (upgraded[0], old)
    )
    torch.testing.assert_close(ours[..., :VOCABULARY], theirs, rtol=0, atol=1e-5)
    config = json.loads((upgraded[0] / "config.json").read_text())
    assert (config["text_config"]["vocab_size"], config["image_token_id"]) == (
        VOCABULARY + 37,
        FIRST + 1,
    )
    load_checkpoint(str(upgraded[0]))


def test_the_same_bytes_every_time(upgraded: tuple[Path, Any], old: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    upgrade_tags(str(old), tmp_path / "again")
    for path in upgraded[0].iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_at_the_published_dimensions_both_matrices_gain_37_rows(old: Path) -> None:
    config = published_config("2.2B", model_type="idefics3")
    config.text_config.vocab_size = VOCABULARY
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert sum(value.numel() for value in model.parameters()) == 2_246_272_880
    wanted = [Wanted(token=tag, words=tag, is_special=True) for tag in TAGS]
    placement = place_tokens((old / "tokenizer.json").read_text(), wanted)
    model.resize_token_embeddings(placement.num_tokens, mean_resizing=False)
    assert sum(value.numel() for value in model.parameters()) == 2_246_272_880 + 2 * 37 * 2048
    assert (
        model.get_input_embeddings().weight.shape
        == model.get_output_embeddings().weight.shape
        == (49_192, 2048)
    )
    assert first_rows(torch.zeros(VOCABULARY, 8), placement.placed).shape == (37, 8)


def test_new_tokens_are_added_in_the_same_way(old: Path, tmp_path: Path) -> None:
    said = add_tokens(str(old), tmp_path / "out", ["<box>", "</box>"])
    assert "<box> 49155, </box> 49156; vocabulary 49,155 -> 49,157" in said
    processor: Any = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer("<box>", add_special_tokens=False)["input_ids"] == [VOCABULARY]


def test_a_whole_vocabulary_is_refused(checkpoint_folders: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has all of these tokens already"):
        upgrade_tags(str(checkpoint_folders["smolvlm"]), tmp_path / "out")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_what_is_in_the_way_or_missing_is_named(old: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="there is something in it already"):
        upgrade_tags(str(old), tmp_path / "full")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json here"):
        upgrade_tags(str(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(ConfigError, match="is no new token"):
        add_tokens(str(old), tmp_path / "out", ["<a>", "<a>"])
