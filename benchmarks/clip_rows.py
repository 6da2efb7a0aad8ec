"""Rows about a clip whose frames are mostly not shown; a part of `pipeline`.

The clip is real and made longer: the frames of the sample clip forwards and backwards, 640 x 360 px
at 25 frames a second, H.264 in MP4 with three frames between others and a keyframe every two
seconds.
"""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import PictureType

from benchmarks.frames import sample_clip
from benchmarks.rows import Row

CLIP_S, CLIP_RATE = 64, 25
CLIP_PX = (640, 360)
QUESTION, ANSWER = "What happens in the clip?", "A rabbit comes out of its burrow and stretches."


def write_clip_rows(folder: Path, *, num_clips: int, seconds: int = CLIP_S) -> Path:
    """Write clips and rows `{"question", "answer", "video"}`, and return the file of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    first = _write_clip(folder / "0.mp4", seconds=seconds)
    lines = []
    for number in range(num_clips):
        path = folder / f"{number}.mp4"
        if number:  # a box that players skip makes another file of it
            path.write_bytes(
                first.read_bytes() + (12).to_bytes(4, "big") + b"free" + bytes([number] * 4)
            )
        lines.append(json.dumps({"question": QUESTION, "answer": ANSWER, "video": path.name}))
    rows_file = folder / "rows.jsonl"
    rows_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return rows_file


def read_clip_rows(rows_file: Path) -> list[tuple[Row, Path]]:
    """Return the rows of a file that `write_clip_rows` wrote, each with its clip."""
    found = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    return [
        (
            Row(question=row["question"], answer=row["answer"], images=()),
            rows_file.parent / row["video"],
        )
        for row in found
    ]


def _write_clip(path: Path, *, seconds: int) -> Path:
    width, height = CLIP_PX
    with av.open(str(sample_clip())) as source:
        shown = [
            frame.reformat(width, height, format="yuv420p") for frame in source.decode(video=0)
        ]
    turn = [*shown, *reversed(shown)]
    options = {
        "preset": "veryfast",
        "threads": "1",
        "x264-params": f"keyint={2 * CLIP_RATE}:scenecut=0:bframes=3:b-pyramid=normal",
    }
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=CLIP_RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * CLIP_RATE):
            frame = turn[number % len(turn)]
            frame.time_base, frame.pts = Fraction(1, CLIP_RATE), number
            frame.pict_type = PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
