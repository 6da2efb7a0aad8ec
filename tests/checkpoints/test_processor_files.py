"""What a run saves as its processor: the base's own files, with the run's picture settings in
them."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoProcessor

from smolvlm.checkpoints.processor_files import PROCESSOR_FILES, save_processor
from tests.media_settings import media_settings

MEDIA = media_settings(longest_edge_px=96, image_splitting=False, fps=2.0, max_frames=7)


@pytest.fixture
def saved(folder: Path, tmp_path: Path) -> Path:
    save_processor(str(folder), tmp_path / "deep" / "saved", media=MEDIA)
    return tmp_path / "deep" / "saved"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_tokenizer_is_copied_to_the_byte(folder: Path, saved: Path) -> None:
    assert (saved / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_it_writes_processor_files_alone(folder: Path, saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    own = {path.name for path in folder.iterdir()} & set(PROCESSOR_FILES)
    assert names == own | {"video_preprocessor_config.json"}


def test_only_the_runs_settings_and_the_tokenizer_class_change(folder: Path, saved: Path) -> None:
    for path in saved.glob("*.json"):
        if path.name == "video_preprocessor_config.json":
            continue
        before, after = read(folder / path.name), read(path)
        changed = {key for key in before | after if before.get(key) != after.get(key)}
        expected = {
            "preprocessor_config.json": {"do_image_splitting", "size"},
            "tokenizer_config.json": {"tokenizer_class"},
        }
        assert changed == expected.get(path.name, set()), path.name


def test_a_plain_auto_processor_has_the_runs_settings(saved: Path) -> None:
    images = AutoProcessor.from_pretrained(saved).image_processor
    assert images.do_image_splitting is False
    assert dict(images.size) == {"longest_edge": 96}
    assert dict(images.max_image_size) == {"longest_edge": 32}


def test_a_plain_video_processor_has_the_runs_settings(checkpoint_folders, tmp_path: Path) -> None:
    save_processor(str(checkpoint_folders["smolvlm"]), tmp_path, media=MEDIA)
    videos = AutoProcessor.from_pretrained(tmp_path).video_processor
    assert (videos.fps, videos.num_frames, dict(videos.size)) == (2.0, 7, {"longest_edge": 32})


def test_a_plain_auto_processor_reads_tokenizer_json_as_it_stands(
    checkpoint_folders, loaded, model_type, tmp_path: Path
) -> None:
    """From an Idefics3 base's own folder transformers 5.23 reads another tokenizer; from what we
    save it must not."""
    folder = checkpoint_folders[model_type]
    save_processor(str(folder), tmp_path, media=MEDIA)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain = AutoProcessor.from_pretrained(tmp_path).tokenizer
    for text in ("a  2 ½", "in 1984:\n\n  37 ³ x", "<image>Déjà  vu 7"):
        assert plain(text)["input_ids"] == own.encode(text).ids
    assert plain.pad_token_id == loaded[model_type].processor.tokenizer.pad_token_id
    assert plain.eos_token_id == loaded[model_type].processor.tokenizer.eos_token_id


def test_saving_onto_the_base_itself_changes_its_settings_alone(
    folder: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(folder, tmp_path / "base")
    save_processor(str(base), base, media=MEDIA)
    assert read(base / "preprocessor_config.json")["size"] == {"longest_edge": 96}
    assert (base / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_it_can_be_saved_from_what_it_saved(saved: Path, tmp_path: Path) -> None:
    save_processor(str(saved), tmp_path / "again", media=media_settings(longest_edge_px=128))
    images = AutoProcessor.from_pretrained(tmp_path / "again").image_processor
    assert images.do_image_splitting is True
    assert dict(images.size) == {"longest_edge": 128}


def test_a_base_that_transformers_saved_keeps_its_settings_in_one_file(
    folder: Path, tmp_path: Path
) -> None:
    """transformers 5 nests the picture settings in processor_config.json and writes no
    preprocessor_config.json."""
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path / "nested")
    assert not (tmp_path / "nested" / "preprocessor_config.json").exists()
    save_processor(str(tmp_path / "nested"), tmp_path / "saved", media=MEDIA)
    images = AutoProcessor.from_pretrained(tmp_path / "saved").image_processor
    assert images.do_image_splitting is False
    assert dict(images.size) == {"longest_edge": 96}
