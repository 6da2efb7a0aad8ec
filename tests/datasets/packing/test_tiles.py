"""The distinct tiles of a pack: decoded once, not at all where cached, and left alone by an example
that fails."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.tiles import TileLoader
from smolvlm.errors import SampleError
from smolvlm.media import medium as medium_module
from smolvlm.media.images import header_size, open_rgb
from smolvlm.media.tile_grid import TileSettings, grid_for
from smolvlm.media.tiles import make_tiles
from smolvlm.records import Frames, Grid, ImageRef, VideoRef
from tests.media_settings import media_settings


class FakeCache:
    """Features by tile key: rows of one number, the order in which tiles were put in."""

    def __init__(self) -> None:
        self.features: dict[bytes, Tensor] = {}
        self.asked: list[bytes] = []

    def keep(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self.features[key] = torch.full((4, 2), float(len(self.features)))

    def read(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        self.asked += keys
        return [self.features.get(key) for key in keys]


def grid_of(image: ImageRef, tiles: TileSettings) -> Grid:
    return grid_for(*header_size(image), tiles)


def load(loader: TileLoader, prompt: PromptSettings, *paths: Path, where: str = "row") -> None:
    images = [ImageRef(path=path) for path in paths]
    loader.add_prompt(images, [grid_of(image, prompt.media.pictures) for image in images])


def keys_of(prompt: PromptSettings, *paths: Path) -> list[bytes]:
    loader = TileLoader(prompt.media, None)
    load(loader, prompt, *paths)
    return loader.tile_keys


def shown(loader: TileLoader) -> Tensor:
    """The pixels in every slot; all tiles must be computed ones."""
    return loader.tiles()[loader.slot_tiles()]


def true_tiles(prompt: PromptSettings, *paths: Path) -> Tensor:
    made = [make_tiles(open_rgb(ImageRef(path=path)), prompt.media.pictures) for path in paths]
    return torch.from_numpy(np.concatenate(made))


def test_slots_show_the_tiles_in_prompt_order(
    prompt: PromptSettings, photos: dict[str, Path]
) -> None:
    paths = [photos["rocket"], photos["on_its_side"], photos["rocket"], photos["horse"]]
    loader = TileLoader(prompt.media, None)
    load(loader, prompt, *paths[:2])
    load(loader, prompt, *paths[2:])
    assert torch.equal(shown(loader), true_tiles(prompt, *paths))
    assert len(loader.tiles()) == len(loader.tile_keys) == len(true_tiles(prompt, *set(paths)))
    assert loader.cached_features() is None


def test_the_same_picture_under_other_names_is_decoded_once(
    prompt: PromptSettings, photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(photos["rocket"].read_bytes())
    opened: list[str] = []

    def counting(image: ImageRef, **options: int):
        opened.append(image.name)
        return open_rgb(image, **options)

    monkeypatch.setattr(medium_module, "open_rgb", counting)
    loader = TileLoader(prompt.media, None)
    load(loader, prompt, photos["rocket"], copy)
    in_the_row = ImageRef(data=copy.read_bytes())
    loader.add_prompt([in_the_row], [grid_of(in_the_row, prompt.media.pictures)])
    assert len(opened) == 1
    assert loader.slot_tiles().tolist() == [*range(5), *range(5), *range(5)]


def test_parts_of_a_clip_that_overlap_share_the_frames_in_both(
    prompt: PromptSettings, clips: dict[str, Path]
) -> None:
    clip = VideoRef(path=clips["steady"])
    parts = [
        Frames(numbers=own, times_s=tuple(number / 25 for number in own), duration_s=3.0)
        for own in ((0, 10, 20), (10, 20, 30), (20, 50))
    ]
    loader = TileLoader(prompt.media, None)
    for part in parts:
        loader.add_prompt([clip], [part])
    assert loader.slot_tiles().tolist() == [0, 1, 2, 1, 2, 3, 2, 4]
    assert len(loader.tiles()) == len(loader.tile_keys) == len(set(loader.tile_keys)) == 5
    alone = [TileLoader(prompt.media, None) for _ in parts]
    for own, part in zip(alone, parts, strict=True):
        own.add_prompt([clip], [part])
    assert torch.equal(shown(loader), torch.cat([shown(own) for own in alone]))


def test_nothing_loaded_is_empty_and_of_the_right_shape(prompt: PromptSettings) -> None:
    loader = TileLoader(prompt.media, None)
    assert (loader.tiles().shape, loader.tiles().dtype) == ((0, 3, 32, 32), torch.uint8)
    assert (loader.slot_tiles().shape, loader.slot_tiles().dtype) == ((0,), torch.long)


def test_cached_pictures_are_not_decoded(
    prompt: PromptSettings, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FakeCache()
    cache.keep(keys_of(prompt, photos["rocket"], photos["camera"]))

    def refuse(image: ImageRef) -> None:
        raise AssertionError(f"{image.name} was decoded")

    monkeypatch.setattr(medium_module, "open_rgb", refuse)
    loader = TileLoader(prompt.media, cache.read)
    load(loader, prompt, photos["camera"], photos["rocket"], photos["camera"])
    features = loader.cached_features()
    assert features is not None
    assert len(loader.tiles()) == 0
    numbers = features[loader.slot_tiles(), 0, 0].tolist()
    assert numbers == [*range(5, 22), *range(5), *range(5, 22)]  # rocket has 5 tiles, camera 17
    assert len(cache.asked) == 22  # the second camera is known


def test_cached_and_computed_pictures_side_by_side(
    prompt: PromptSettings, photos: dict[str, Path]
) -> None:
    cache = FakeCache()
    cache.keep(keys_of(prompt, photos["rocket"]))
    loader = TileLoader(prompt.media, cache.read)
    load(loader, prompt, photos["rocket"], photos["coffee"])  # 5 cached tiles, then 13 to compute
    load(loader, prompt, photos["rocket"])
    features = loader.cached_features()
    assert features is not None
    assert loader.slot_tiles().tolist() == [*range(13, 18), *range(13), *range(13, 18)]
    assert features[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(loader.tiles(), true_tiles(prompt, photos["coffee"]))
    assert loader.tile_keys == keys_of(prompt, photos["coffee"])


def test_a_picture_of_which_the_cache_lacks_a_tile_is_computed_whole(
    prompt: PromptSettings, photos: dict[str, Path]
) -> None:
    cache = FakeCache()
    cache.keep(keys_of(prompt, photos["rocket"])[:-1])
    loader = TileLoader(prompt.media, cache.read)
    load(loader, prompt, photos["rocket"])
    assert loader.cached_features() is None
    assert torch.equal(shown(loader), true_tiles(prompt, photos["rocket"]))


def test_a_failure_leaves_nothing_of_its_example_behind(
    prompt: PromptSettings, photos: dict[str, Path], tmp_path: Path
) -> None:
    cut_short = tmp_path / "cut.png"
    cut_short.write_bytes(photos["horse"].read_bytes()[:500])
    cache = FakeCache()
    cache.keep(keys_of(prompt, photos["camera"]))
    loader, other = (TileLoader(prompt.media, cache.read) for _ in range(2))
    load(loader, prompt, photos["rocket"])
    with pytest.raises(SampleError, match=r"^picture .*cut\.png is damaged or cut short"):
        load(loader, prompt, photos["camera"], photos["coffee"], cut_short)
    load(loader, prompt, photos["camera"], photos["coffee"])
    for name in ("rocket", "camera", "coffee"):
        load(other, prompt, photos[name])
    assert loader.tile_keys == other.tile_keys
    assert torch.equal(loader.tiles(), other.tiles())
    assert torch.equal(loader.slot_tiles(), other.slot_tiles())
    kept, expected = loader.cached_features(), other.cached_features()
    assert kept is not None
    assert expected is not None
    assert torch.equal(kept, expected)


def test_a_picture_that_changed_its_size_is_an_error(
    prompt: PromptSettings, photos: dict[str, Path]
) -> None:
    image = ImageRef(path=photos["coffee"])
    with pytest.raises(SampleError) as raised:
        TileLoader(prompt.media, None).add_prompt([image], [Grid(rows=0, columns=0)])
    assert str(raised.value).startswith(
        f"{image.name} is cut into 13 tiles, 1 were planned\n  fix: the row or"
    )


def test_keys_go_by_content_tile_and_settings(
    prompt: PromptSettings, photos: dict[str, Path]
) -> None:
    keys = keys_of(prompt, photos["rocket"])
    assert len(set(keys)) == 5
    assert keys == keys_of(prompt, photos["rocket"])
    assert set(keys).isdisjoint(keys_of(prompt, photos["coffee"]))
    other = media_settings(longest_edge_px=64)
    loader = TileLoader(other, None)
    image = ImageRef(path=photos["rocket"])
    loader.add_prompt([image], [grid_of(image, other.pictures)])
    assert set(keys).isdisjoint(loader.tile_keys)
