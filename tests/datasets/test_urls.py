"""Rows that name pictures and clips by address: refused unless allowed, and then as good as
files."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from smolvlm.check.check_rows import check_rows
from smolvlm.config.schema import DataConfig
from smolvlm.datasets.builder import measure_mixture, open_mixture
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.measured import RowRequirements
from smolvlm.datasets.rows.formats import to_conversation
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import SampleError
from smolvlm.media import downloads
from smolvlm.media.downloads import kept_file
from smolvlm.media.layout import layout_of
from smolvlm.media.medium import open_medium
from smolvlm.records import ImageRef, Media, VideoRef
from tests.web_server import WebServer, web_server

QA = {"question": "q", "answer": "x"}


@pytest.fixture
def server(
    photos: dict[str, Path], clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebServer]:
    """Serves pictures and clips; the cache folder is empty."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "cache"))
    with web_server() as served:
        for name in ("coffee", "horse"):
            served.serve(f"/{name}.png", photos[name].read_bytes())
        served.serve("/steady.mp4", clips["steady"].read_bytes())
        served.serve("/cut.mp4", clips["cut"].read_bytes())
        yield served


def data_of(folder: Path, *rows: dict[str, Any], **settings: Any) -> DataConfig:
    (folder / "rows.jsonl").write_text("".join(json.dumps({**QA, **row}) + "\n" for row in rows))
    return DataConfig(mixture=[{"path": "rows.jsonl"}], base_dir=folder, **settings)


def media_of(data: DataConfig) -> list[Media]:
    (source,) = open_mixture(data.mixture, data)
    return [medium for row in source.all_rows() for medium in row.media]


def tiles_of(medium: Media, prompt: PromptSettings) -> tuple[tuple[bytes, ...], torch.Tensor]:
    layout = layout_of(medium, prompt.media)
    opened = open_medium(medium, layout, prompt.media)
    return opened.tile_keys, torch.from_numpy(opened.tiles())


def test_by_default_nothing_is_fetched(
    server: WebServer, prompt: PromptSettings, tmp_path: Path
) -> None:
    data = data_of(
        tmp_path,
        {"image": f"{server.address}/coffee.png"},
        {"video": f"{server.address}/steady.mp4"},
    )
    with pytest.raises(
        SampleError,
        match=r"rows\.jsonl:1: a picture is an address(.|\n)*`data\.allow_urls: true` if",
    ):
        measure_mixture(data.mixture, data, prompt=prompt)
    assert server.asked == []
    assert not (tmp_path / "cache" / "media").exists()


def test_what_an_address_names_is_what_its_file_is(
    server: WebServer,
    photos: dict[str, Path],
    clips: dict[str, Path],
    prompt: PromptSettings,
    tmp_path: Path,
) -> None:
    address = server.address
    rows: list[dict[str, Any]] = [
        {"image": f"{address}/coffee.png"},
        {"video": f"{address}/steady.mp4", "start_s": 1},
        {"video": [f"{address}/coffee.png?size=2", f"{address}/horse.png#top"]},
        {"images": [{"path": f"{address}/horse.png", "bytes": None}]},
    ]
    files: list[Media] = [
        ImageRef(path=photos["coffee"]),
        VideoRef(path=clips["steady"], start_s=1.0),
        VideoRef(frames=(ImageRef(path=photos["coffee"]), ImageRef(path=photos["horse"]))),
        ImageRef(path=photos["horse"]),
    ]
    media = media_of(data_of(tmp_path, *rows, allow_urls=True, allow_private_urls=True))
    assert server.asked == []  # a row names; opening fetches
    for medium, file in zip(media, files, strict=True):
        (keys, tiles), (file_keys, file_tiles) = tiles_of(medium, prompt), tiles_of(file, prompt)
        assert keys == file_keys
        assert torch.equal(tiles, file_tiles)
        tiles_of(medium, prompt)
    assert sorted(server.asked) == [
        "/coffee.png",
        "/coffee.png?size=2",
        "/horse.png",
        "/horse.png",
        "/steady.mp4",
    ]
    assert media[0].name == f"{address}/coffee.png"
    assert media[1].name == f"{address}/steady.mp4"
    assert media[0] == ImageRef(
        path=kept_file(f"{address}/coffee.png"), url=f"{address}/coffee.png", allow_private_url=True
    )


def test_rows_are_measured_and_the_next_run_needs_no_server(
    server: WebServer, prompt: PromptSettings, tmp_path: Path
) -> None:
    data = data_of(
        tmp_path,
        *[{"image": f"{server.address}/coffee.png"}] * 3,
        {"video": f"{server.address}/steady.mp4"},
        allow_urls=True,
        allow_private_urls=True,
    )
    (count,) = measure_mixture(data.mixture, data, prompt=prompt).counts
    assert dict(count.modalities) == {"image": 3, "video": 1}
    assert server.asked == ["/coffee.png", "/steady.mp4"]
    server.answers.clear()
    assert measure_mixture(data.mixture, data, prompt=prompt).counts == (count,)
    assert len(server.asked) == 2


def test_a_row_whose_address_has_nothing_is_skipped_and_counted(
    server: WebServer, prompt: PromptSettings, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"image": f"{server.address}/{name}.png"} for name in ("coffee", "gone")
    ]
    rows.append({"video": f"{server.address}/gone.mp4"})
    skipping = data_of(
        tmp_path,
        *rows,
        allow_urls=True,
        allow_private_urls=True,
        on_bad_sample="skip",
        max_bad_fraction=1.0,
    )
    measured = measure_mixture(skipping.mixture, skipping, prompt=prompt)
    assert [row.where for row in measured.skipped] == ["rows.jsonl:2", "rows.jsonl:3"]
    assert (
        f"picture {server.address}/gone.png cannot be downloaded: status 404"
        in measured.skipped[0].reason
    )
    assert (
        f"clip {server.address}/gone.mp4 cannot be downloaded: status 404"
        in measured.skipped[1].reason
    )
    with pytest.raises(SampleError, match="cannot be downloaded"):
        measure_mixture(skipping.mixture, replace_policy(skipping), prompt=prompt)


def replace_policy(data: DataConfig) -> DataConfig:
    return data.model_copy(update={"on_bad_sample": "error"})


def test_check_names_addresses(server: WebServer, prompt: PromptSettings, tmp_path: Path) -> None:
    rows = [{"image": f"{server.address}/gone.png"}, {"video": f"{server.address}/cut.mp4"}]
    rows.append({"image": f"{server.address}/coffee.png"})
    data = data_of(tmp_path, *rows, allow_urls=True, allow_private_urls=True)
    found = check_rows(
        open_mixture(data.mixture, data),
        (),
        prompt,
        requirements=RowRequirements(budget=Budget(max_tokens=4096, max_tiles=64)),
        num_workers=1,
    )
    assert [(own.where, own.kind) for own in found.findings] == [
        ("rows.jsonl:1", "missing_media"),
        ("rows.jsonl:2", "corrupt_media"),
    ]
    assert f"clip {server.address}/cut.mp4 is " in found.findings[1].message


def test_a_clip_may_be_larger_than_a_picture(
    server: WebServer,
    photos: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    prompt: PromptSettings,
) -> None:
    small = replace(downloads.PICTURE_LIMITS, max_bytes=1000)
    monkeypatch.setattr("smolvlm.media.images.PICTURE_LIMITS", small)
    data = data_of(
        tmp_path,
        {"image": f"{server.address}/coffee.png"},
        {"video": f"{server.address}/steady.mp4"},
    )
    picture, clip = media_of(
        data.model_copy(update={"allow_urls": True, "allow_private_urls": True})
    )
    with pytest.raises(SampleError, match=r"it is larger than the limit of 1,000 bytes"):
        layout_of(picture, prompt.media)
    assert layout_of(clip, prompt.media).num_tiles == 3


@pytest.mark.parametrize("value", ["s3://a/b.png", "gs://a/b.png", "hf://datasets/a/b/c.png"])
def test_stores_are_asked_where_rows_are_trusted_alone(value: str) -> None:
    spec = SourceSpec(name="s", path=Path("/r"), label="r", format="json", media_root=Path("/p"))
    with pytest.raises(SampleError, match=r"is an address(.|\n)*allow_urls: true"):
        to_conversation({**QA, "image": value}, spec=spec, where="r:1")
    row = to_conversation({**QA, "image": value}, spec=replace(spec, urls="public"), where="r:1")
    assert row.media == (ImageRef(path=kept_file(value), url=value),)


@pytest.mark.parametrize("value", ["ftp://a/b.png", "data:image/png,x"])
def test_other_protocols_stay_refused(value: str) -> None:
    spec = SourceSpec(
        name="s", path=Path("/r"), label="r", format="json", media_root=Path("/p"), urls="all"
    )
    with pytest.raises(
        SampleError, match=r"is an address|is a data URI that is not base64"
    ) as caught:
        to_conversation({**QA, "image": value}, spec=spec, where="r:1")
    assert "allow_urls" not in str(caught.value)
