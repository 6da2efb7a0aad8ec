"""What a checkpoint costs at the 256M dimensions: writing it, and what its marker vouches for.

    python -m benchmarks.checkpointing [--folder FOLDER] [--rounds 3]

Written: the weights (float32, safetensors) and AdamW's two moments, 3 GB. Then the marker: every
file read for its digest and synced. Last what a resume reads. Meanwhile products of matrices go on,
on one thread: how many more seconds of its CPU each takes is what training pays for the marker
where a core is free for it.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from smolvlm.build.configs import published_config
from smolvlm.model.stock_classes import STOCK_CLASSES
from smolvlm.train.checkpoint_folder import changed_content, mark_whole

MARKER = {"step": 1, "settings": {}, "plan": ""}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def weights() -> dict[str, torch.Tensor]:
    """Return random tensors of the 256M checkpoint's shapes."""
    with torch.device("meta"):
        model = STOCK_CLASSES["smolvlm"](published_config("256M", model_type="smolvlm"))
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.empty(value.shape).normal_(generator=generator)
        for name, value in model.named_parameters()
    }


def slowdown(work: Callable[[], object], *, seconds_of_work: float) -> float:
    """Return how much more of its CPU a product takes while work goes on, in shares of 1."""
    left, right = torch.randn(2, 512, 512)

    def rate(is_over: Callable[[], bool]) -> float:
        count, began = 0, time.thread_time()
        while not is_over():
            left @ right
            count += 1
        return count / (time.thread_time() - began)

    end = time.perf_counter() + seconds_of_work
    alone = rate(lambda: time.perf_counter() > end)
    thread = threading.Thread(target=work)
    thread.start()
    beside = rate(lambda: not thread.is_alive())
    thread.join()
    return alone / beside - 1


def save(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Write what a checkpoint's bytes are: weights and two moments."""
    save_file(tensors, folder / "model.safetensors")
    moments = [{name: value + number for name, value in tensors.items()} for number in (1, 2)]
    torch.save(moments, folder / "optimizer.pt")


def measure(tensors: dict[str, torch.Tensor], folder: Path) -> str:
    """Write and mark one checkpoint, and return what it took."""
    saved = seconds(lambda: save(tensors, folder))
    marked = seconds(lambda: mark_whole(folder, MARKER))
    again = slowdown(lambda: mark_whole(folder, MARKER), seconds_of_work=2)
    read = seconds(lambda: changed_content(folder))
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    return (
        f"{size:.2f} GB; save {saved:.2f} s, marker {marked:.2f} s, resume reads {read:.2f} s; "
        f"products beside a marker {again:+.1%}"
    )


def main() -> None:
    """Print a line a round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tensors = weights()
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
            folder = Path(place) / "checkpoint-1"
            folder.mkdir()
            print(f"round {number + 1}: {measure(tensors, folder)}", flush=True)


if __name__ == "__main__":
    main()
