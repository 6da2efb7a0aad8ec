"""`python -m benchmarks.row_digests`: what a row's digests cost beside measuring it.

In: rows of one picture, real photographs in 512 px, as files and inside the row, and rows of text.
Out: microseconds of CPU a row for measuring, digests included, and for the digests alone, the
best of five rounds; and for reading and hashing the files, as `train.verify_data` does.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import skimage
from PIL import Image

from smolvlm.datasets.packing.lengths import Meter
from smolvlm.datasets.packing.media_reader import MediaReader
from smolvlm.datasets.packing.row_digests import content_digest, media_sizes_and_times
from smolvlm.records import Conversation, ImageRef, Turn
from smolvlm.runs.mixture import mixture_settings

ROUNDS, ROWS = 5, 400


def main() -> int:
    """Print the table."""
    with TemporaryDirectory(prefix="smolvlm-bench-") as folder:
        files = write_pictures(Path(folder))
        mixture = Path(folder) / "mixture.yaml"
        mixture.write_text("[]")
        settings = mixture_settings(mixture, (), None, allow_outside_root=True)
        kinds = {
            "text": [conversation("What is a bus?") for _ in range(ROWS)],
            "a picture's file": [
                conversation(ImageRef(path=files[number % len(files)]), "What is it?")
                for number in range(ROWS)
            ],
            "a picture in the row": [
                conversation(ImageRef(data=files[number % len(files)].read_bytes()), "What is it?")
                for number in range(ROWS)
            ],
        }
        print("| row | measuring, us | of which digests | reading it all |\n|---|---|---|---|")
        for name, rows in kinds.items():
            whole = microseconds_a_row(
                lambda rows=rows: Meter(settings.prompt.encoder(), settings.prompt.media).sizes(
                    rows, range(ROWS), media_root=Path(folder)
                )
            )
            digests = microseconds_a_row(lambda rows=rows: digest(rows, Path(folder)))
            reading = microseconds_a_row(lambda rows=rows: MediaReader(rows)(range(ROWS)))
            print(f"| {name} | {whole:.0f} | {digests:.1f} | {reading:.0f} |")
    return 0


def write_pictures(folder: Path) -> list[Path]:
    """Write photographs as JPEG files of 512 px."""
    originals = Path(skimage.__file__).parent / "data"
    files = [folder / f"{name}.jpg" for name in ("coffee", "rocket", "astronaut")]
    for file in files:
        name = "rocket.jpg" if file.stem == "rocket" else f"{file.stem}.png"
        with Image.open(originals / name) as picture:
            picture.convert("RGB").resize((512, 512)).save(file, quality=90)
    return files


def conversation(*blocks: ImageRef | str) -> Conversation:
    """Return a row."""
    turns = (Turn(role="user", blocks=blocks), Turn(role="assistant", blocks=("A red bus.",)))
    return Conversation(turns=turns, where="rows.jsonl:1", source="rows")


def digest(rows: list[Conversation], root: Path) -> None:
    """Make the digests of rows, as measuring does."""
    for row in rows:
        content_digest(row, root)
        media_sizes_and_times(row.media)


def microseconds_a_row(work: Callable[[], object]) -> float:
    """Return the CPU time of the best round, in microseconds a row."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best / ROWS * 1e6


if __name__ == "__main__":
    sys.exit(main())
