"""Rows with clips: sizes known ahead, trees, packs with each frame once, whatever names the
clip."""

import json
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFile
from torch.utils.data import DataLoader

from smolvlm.config.schema import DataConfig
from smolvlm.datasets.builder import measure_mixture
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import MODALITIES, Budget, HeaderReader, Meter
from smolvlm.datasets.packing.plan import PlanSettings, plan_training
from smolvlm.datasets.packing.tiles import TileLoader
from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.errors import SampleError
from smolvlm.media import medium as medium_module
from smolvlm.media.video.frames import FrameSettings
from smolvlm.media.video.reader import frame_tiles
from smolvlm.records import Conversation, Frames, ImageRef, Sample, Turn, VideoRef
from tests.datasets.conftest import DatasetOf
from tests.media.conftest import Recipe, write_camera_clip, write_clip
from tests.memory_rows import measured_rows


def ask(
    clip: VideoRef | ImageRef, question: str = "What?", answer: str = "A cup.", number: int = 1
) -> Conversation:
    turns = (Turn(role="user", blocks=(clip, question)), Turn(role="assistant", blocks=(answer,)))
    return Conversation(turns=turns, where=f"rows.jsonl:{number}", source="rows")


@pytest.fixture(scope="module")
def all_kinds(clips: dict[str, Path], photos: dict[str, Path]) -> list[VideoRef]:
    """A clip as a file, with uneven times, in part, as bytes, as a folder, as a list of frames."""
    return [
        VideoRef(path=clips["steady"]),
        VideoRef(path=clips["uneven"]),
        VideoRef(path=clips["steady"], start_s=1.0, end_s=2.5),
        VideoRef(data=clips["steady"].read_bytes()),
        VideoRef(path=clips["frames"], source_fps=3.0),
        VideoRef(frames=(ImageRef(path=photos["coffee"]), ImageRef(path=photos["horse"]))),
    ]


def true_tiles(prompt: PromptSettings, clip: VideoRef) -> torch.Tensor:
    (frames,) = HeaderReader(prompt.media).layouts([clip])
    assert isinstance(frames, Frames)
    return torch.from_numpy(frame_tiles(clip, frames, prompt.media.frame_tiles, backend="pyav"))


def test_sizes_known_from_headers_are_those_of_the_encoded_row(
    prompt: PromptSettings, all_kinds: list[VideoRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medium_module, "frame_tiles", refuse)
    rows = [ask(clip) for clip in all_kinds]
    sizes = Meter(prompt.encoder(), prompt.media).sizes(rows, range(len(rows))).to_pylist()
    assert [own["num_tiles"] for own in sizes] == [3, 4, 2, 3, 4, 2]
    for row, own in zip(rows, sizes, strict=True):
        layouts = [HeaderReader(prompt.media).layouts(row.media)]
        example = prompt.encoder().encode(Sample(conversations=(row,)), layouts=layouts)
        assert (len(example.input_ids), len(example.tiles)) == (own["num_tokens"], own["num_tiles"])
        assert MODALITIES[own["modality"]] == "video"


def refuse(*_arguments: object, **_named: object) -> None:
    raise AssertionError("a frame was decoded")


def test_a_pack_shows_each_clips_frames_in_order(
    prompt: PromptSettings, all_kinds: list[VideoRef], dataset_of: DatasetOf
) -> None:
    rows = [ask(clip, number=number) for number, clip in enumerate(all_kinds, start=1)]
    pack = dataset_of(rows, [(number,) for number in range(len(rows))])[0]
    shown = pack.tiles[pack.slot_tiles]
    assert torch.equal(shown, torch.cat([true_tiles(prompt, clip) for clip in all_kinds]))
    # The same clip as a file, in part and as bytes: a frame that is shown twice stands once.
    assert len(pack.tiles) == len(set(pack.tile_keys)) < len(shown)


def test_questions_about_one_clip_are_a_tree_with_its_frames_once(
    clips: dict[str, Path], dataset_of: DatasetOf
) -> None:
    clip = VideoRef(path=clips["steady"])
    rows = [ask(clip, f"Question {number}?", number=number) for number in range(3)]
    rows.append(ask(replace(clip, start_s=1.0), number=3))
    dataset = dataset_of(rows)
    samples = [sample for pack in dataset.plan.packs for sample in pack.samples]
    assert sorted(map(sorted, samples)) == [[0, 1, 2], [3]]
    assert len(dataset.example((0, 1, 2)).tiles) == 3


def test_cached_clips_are_not_decoded(
    clips: dict[str, Path], dataset_of: DatasetOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medium_module, "frame_tiles", refuse)
    asked: list[bytes] = []

    def read(keys: Sequence[bytes]) -> list[torch.Tensor | None]:
        asked.extend(keys)
        return [torch.zeros(2, 3) for _ in keys]

    pack = dataset_of([ask(VideoRef(path=clips["steady"]))], [(0,)], read_features=read)[0]
    assert (len(asked), len(pack.tiles), len(pack.cached_features)) == (3, 0, 3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_change_nothing(
    all_kinds: list[VideoRef], dataset_of: DatasetOf, num_workers: int
) -> None:
    dataset = dataset_of([ask(clip, number=number) for number, clip in enumerate(all_kinds)])
    expected = [
        dataset[number] for number in range(len(dataset))
    ]  # decoded before the workers are forked
    loaded = list(DataLoader(dataset, batch_size=None, num_workers=num_workers))
    for ours, other in zip(expected, loaded, strict=True):
        assert torch.equal(ours.tiles, other.tiles)
        assert torch.equal(ours.input_ids, other.input_ids)
    copy: PackDataset = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0].tiles, expected[0].tiles)


@pytest.fixture(scope="module")
def averaging(prompt: PromptSettings) -> PromptSettings:
    """The prompt of a run that averages pairs of frames."""
    frames = replace(prompt.media.frames, average_frames=2)
    return replace(prompt, media=replace(prompt.media, frames=frames))


def test_averaged_clips_keep_every_frame_and_share_places(
    prompt: PromptSettings,
    averaging: PromptSettings,
    all_kinds: list[VideoRef],
    photos: dict[str, Path],
) -> None:
    """Files, parts, bytes, folders, lists of frames; a picture's tiles beside them stay as they
    are."""
    rows = [ask(clip) for clip in (*all_kinds, ImageRef(path=photos["coffee"]))]
    sizes, alone = (
        Meter(own.encoder(), own.media).sizes(rows, range(len(rows))).to_pylist()
        for own in (averaging, prompt)
    )
    loader, plain = TileLoader(averaging.media, None), TileLoader(prompt.media, None)
    found: list[list[int]] = []
    for row, own in zip(rows, sizes, strict=True):
        sample = Sample(conversations=(row,))
        layouts = [HeaderReader(averaging.media).layouts(row.media)]
        example = averaging.encoder().encode(sample, layouts=layouts)
        assert (len(example.input_ids), len(example.tiles)) == (own["num_tokens"], own["num_tiles"])
        loader.add_example(example)
        found.append(list(example.slot_sizes))
        plain.add_prompt(row.media, HeaderReader(prompt.media).layouts(row.media))
    assert found == [[2, 1], [2, 2], [2], [2, 1], [2, 2], [2], [1] * 13]
    assert (
        [own["num_tiles"] for own in sizes]
        == [own["num_tiles"] for own in alone]
        == [3, 4, 2, 3, 4, 2, 13]
    )
    assert sizes[-1] == alone[-1]
    slot_sizes = loader.slot_sizes()
    assert slot_sizes is not None
    assert slot_sizes.tolist() == [size for own in found for size in own]
    assert plain.slot_sizes() is None
    assert loader.tile_keys == plain.tile_keys, "a cached frame serves every setting"
    assert torch.equal(loader.slot_tiles(), plain.slot_tiles())


def test_a_pack_and_a_prompt_say_which_tiles_share_a_place(
    averaging: PromptSettings, all_kinds: list[VideoRef]
) -> None:
    rows = [ask(clip, number=number) for number, clip in enumerate(all_kinds)]
    measured = measured_rows(rows, averaging)
    settings_of_plan = PlanSettings(
        budget=Budget(max_tokens=700, max_tiles=18),
        packs_per_step=1,
        share_media=True,
        max_branches=4,
        seed=0,
    )
    dataset = PackDataset(
        measured,
        plan_training(measured.lengths, settings_of_plan),
        encoder=averaging.encoder(),
        settings=averaging.media,
    )
    pack = dataset[0]
    assert pack.slot_sizes is not None
    assert int(pack.slot_sizes.sum()) == len(pack.slot_tiles) == 18, (
        "a pack's tile budget counts frames"
    )
    image_tokens = averaging.tokens.tokens_per_tile * len(pack.slot_sizes)
    assert (pack.input_ids == averaging.tokens.image).sum() == image_tokens
    loader = TileLoader(averaging.media, None)
    for where in pack.where:
        (row,) = (row for row in rows if row.where == where)
        layouts = HeaderReader(averaging.media).layouts(row.media)
        loader.add_prompt(row.media, layouts)
    assert torch.equal(loader.slot_sizes(), pack.slot_sizes)
    assert torch.equal(loader.slot_tiles(), pack.slot_tiles)


def test_a_damaged_clip_is_left_out_where_rows_may_be_skipped(
    clips: dict[str, Path], tmp_path: Path, dataset_of: DatasetOf
) -> None:
    changing = tmp_path / "changing.mp4"
    changing.write_bytes(clips["steady"].read_bytes())
    rows = [ask(VideoRef(path=changing), number=1), ask(VideoRef(path=clips["uneven"]), number=2)]
    dataset = dataset_of(rows, [(0,), (1,)], on_bad_sample="skip")
    changing.write_bytes(clips["uneven"].read_bytes())
    with pytest.raises(SampleError, match="planned"):
        pickle.loads(pickle.dumps(dataset)).example((0,))  # a copy, which has no headers in mind
    pack = dataset[0]
    assert pack.where == ("rows.jsonl:2",)
    assert [row.where for row in pack.skipped] == ["rows.jsonl:1"]


def test_captions_and_parts_count_from_the_clips_begin(
    prompt: PromptSettings, tmp_path: Path
) -> None:
    """Whatever the file's clock says: a recording that begins at 10 o'clock begins at 00:00."""
    late = Recipe(suffix="mkv", codec="libx264", times=range(900_000, 900_200))
    path = write_clip(tmp_path / "late.mkv", late)
    rows = [
        ask(VideoRef(path=path), number=1),
        ask(VideoRef(path=path, start_s=5.0, end_s=7.0), number=2),
    ]
    for row, first in zip(rows, ("Frame from 00:00:", "Frame from 00:05:"), strict=True):
        layouts = HeaderReader(prompt.media).layouts(row.media)
        example = prompt.encoder().encode(Sample(conversations=(row,)), layouts=[layouts])
        text = prompt.text.decode(example.input_ids.tolist())
        assert text.index(first) == text.index("Frame from")
        assert "from a 0:00:08 [H:MM:SS] video" in text


def test_a_clip_of_camera_jpegs_is_trained_on(dataset_of: DatasetOf, tmp_path: Path) -> None:
    path = write_camera_clip(tmp_path / "camera.avi", orientation=6)
    pack = dataset_of([ask(VideoRef(path=path))], [(0,)])[0]
    assert (len(pack.tiles), pack.skipped) == (1, ())


@pytest.mark.parametrize("error", [KeyError("a marker"), zlib.error("-3")])
def test_no_failure_of_a_decoder_ends_a_run_that_may_skip(
    error: Exception,
    photos: dict[str, Path],
    clips: dict[str, Path],
    dataset_of: DatasetOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        ask(ImageRef(path=photos["coffee"]), number=1),
        ask(VideoRef(path=clips["frames"]), number=2),
        ask(VideoRef(path=clips["steady"]), number=3),
    ]
    dataset = dataset_of(rows, [(0,), (1,), (2,)], on_bad_sample="skip")

    def fails(*_arguments: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fails)
    pack = dataset[0]
    assert pack.where == ("rows.jsonl:3",)
    assert [row.where for row in pack.skipped] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert all("is damaged or cut short" in row.reason for row in pack.skipped)


def test_a_clip_in_a_shard_is_the_clip(
    clips: dict[str, Path], prompt: PromptSettings, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        shard.add(clips["uneven"], "1.mp4")
        (tmp_path / "1.json").write_text(
            json.dumps({"question": "What?", "answer": "A cup.", "end_s": 3})
        )
        shard.add(tmp_path / "1.json", "1.json")
    (source,) = open_sources(load_mixture([{"path": "s.tar"}], base_dir=tmp_path))
    (clip,) = source.all_rows()[0].media
    assert isinstance(clip, VideoRef)
    assert torch.equal(
        true_tiles(prompt, clip), true_tiles(prompt, VideoRef(path=clips["uneven"], end_s=3.0))
    )


def test_a_mixture_of_all_modalities(
    clips: dict[str, Path], photos: dict[str, Path], prompt: PromptSettings, tmp_path: Path
) -> None:
    rows = {
        "video": [{"question": "q", "answer": "a", "video": str(clips["steady"])}],
        "folder": [{"question": "q", "answer": "a", "video": str(clips["frames"])}] * 2,
        "picture": [{"question": "q", "answer": "a", "image": str(photos["coffee"])}],
        "both": [
            {
                "question": "q",
                "answer": "a",
                "image": str(photos["coffee"]),
                "video": str(clips["uneven"]),
            }
        ],
        "text": [{"question": "q", "answer": "a"}],
    }
    for name, own in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    sources = [{"path": f"{name}.jsonl", "source_fps": 2} for name in rows]
    data = DataConfig(mixture=sources, base_dir=tmp_path, allow_outside_root=True, max_frames=5)
    counts = {count.name: count for count in measure_mixture(sources, data, prompt=prompt).counts}
    kinds = {name: dict(count.modalities) for name, count in counts.items()}
    assert kinds == {
        "video": {"video": 1},
        "folder": {"video": 2},
        "picture": {"image": 1},
        "both": {"video": 1},
        "text": {"text": 1},
    }
    assert counts["folder"].num_tiles == 2 * 6  # 12 frames at 2 a second last 6 s


@settings(deadline=None, max_examples=20)
@given(fps=st.floats(0.1, 30), max_frames=st.integers(1, 80))
def test_the_settings_decide_how_many_frames(
    clips: dict[str, Path], prompt: PromptSettings, fps: float, max_frames: int
) -> None:
    media = replace(
        prompt.media, frames=FrameSettings(fps=fps, max_frames=max_frames, sampling="fps")
    )
    (frames,) = HeaderReader(media).layouts([VideoRef(path=clips["steady"])])
    assert frames.num_tiles == max(1, min(round(3 * fps), max_frames, 75))
