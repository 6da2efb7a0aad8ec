"""What the loss costs at the output head of the 256M dimensions: logits kept, or never.

    python -m benchmarks.head_loss [--targets 64 768 4096] [--rounds 5] [--chunk 512]

Hidden states of 576, a vocabulary of 49,280, forward and backward on one thread, in float32 and
under autocast in bfloat16. Both ways take turns, so that a machine whose speed moves slows both;
times are the process's CPU seconds, medians over the rounds, and the ratio is the median of each
round's. Errors are of the gradients by hidden states and by weight, relative to their norm in
float64. Memory is the most that tensors and the libraries' buffers add to the process in one pass
in a process of its own.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smolvlm.model import fused_loss
from smolvlm.model.loss import mean_of_pack, pack_loss

HIDDEN, VOCABULARY = 576, 49280
TINY = 16, 97


def by_autograd(losses: Tensor, pack: Mapping[str, Any], normalizer: Tensor | float) -> Any:
    """Return the mean as a loss that the model does not know, so that it keeps logits."""
    return mean_of_pack(losses, pack, normalizer)


WAYS = {"autograd": by_autograd, "fused": mean_of_pack}


class Problem:
    """A head, hidden states and targets."""

    def __init__(self, targets: int, *, is_half: bool, widths: tuple[int, int]) -> None:
        torch.manual_seed(0)
        hidden, vocabulary = widths
        self.is_half, self.normalizer = is_half, float(targets)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        self.hidden = torch.randn(targets, hidden, requires_grad=True)
        self.pack = {
            "predict_from": torch.arange(targets),
            "target_ids": torch.randint(0, vocabulary, (targets,)),
            "target_weights": torch.ones(targets),
        }

    def gradients(self, way: str) -> list[Tensor]:
        """Return the gradients by hidden states and by weight."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_half):
            loss, _, _ = pack_loss(
                self.hidden,
                self.head,
                self.pack,
                normalizer=self.normalizer,
                loss_of=WAYS[way],
            )
        loss.backward()
        found = [self.hidden.grad, self.head.weight.grad]
        self.hidden.grad = self.head.weight.grad = None
        return [value for value in found if value is not None]

    def exact(self) -> list[Tensor]:
        """Return the gradients in float64, of the same values."""
        copied = Problem(1, is_half=False, widths=(1, 1))
        copied.head, copied.normalizer = self.head.double(), self.normalizer
        copied.hidden = self.hidden.detach().double().requires_grad_()
        copied.pack = self.pack
        found = copied.gradients("autograd")
        self.head.float()
        return found


def errors(problem: Problem) -> dict[str, list[float]]:
    """Return each way's errors, of the gradients by hidden states and by weight."""
    exact = problem.exact()
    return {
        way: [
            float((value - right).norm() / right.norm())
            for value, right in zip(problem.gradients(way), exact, strict=True)
        ]
        for way in WAYS
    }


def seconds(problem: Problem, *, rounds: int) -> dict[str, list[float]]:
    """Return each way's CPU seconds, a figure a round; one more round goes before."""
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        for way in WAYS:
            began = time.process_time()
            problem.gradients(way)
            taken[way].append(time.process_time() - began)
    return {way: values[1:] for way, values in taken.items()}


def _resident_bytes(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def _added_bytes(way: str, targets: int, is_half: bool, widths: tuple[int, int]) -> int:
    torch.set_num_threads(1)
    problem = Problem(targets, is_half=is_half, widths=widths)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the highest mark begins anew
    before = _resident_bytes("VmRSS")
    problem.gradients(way)
    return _resident_bytes("VmHWM") - before


def memory(targets: int, *, is_half: bool, widths: tuple[int, int]) -> dict[str, int]:
    """Return the bytes that each way adds to a process."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return {way: pool.apply(_added_bytes, (way, targets, is_half, widths)) for way in WAYS}


def report(targets: int, *, is_half: bool, widths: tuple[int, int], rounds: int) -> str:
    """Return a line of the table."""
    problem = Problem(targets, is_half=is_half, widths=widths)
    wrong, taken = errors(problem), seconds(problem, rounds=rounds)
    added = memory(targets, is_half=is_half, widths=widths)
    ratio = statistics.median(
        old / new for old, new in zip(taken["autograd"], taken["fused"], strict=True)
    )
    columns = [
        f"{'bfloat16' if is_half else 'float32':9}{targets:6}",
        *(f"{way} {statistics.median(taken[way]):.3f} s" for way in WAYS),
        f"{ratio:.2f}x",
        *(f"{way} {added[way] / 1e6:.0f} MB" for way in WAYS),
        *(f"{way} {wrong[way][0]:.4e} {wrong[way][1]:.4e}" for way in WAYS),
    ]
    return "  ".join(columns)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each type and number of targets."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.head_loss", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--targets", type=int, nargs="+", default=[64, 768, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunk", type=int, help="another TARGETS_PER_CHUNK")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny dimensions: checks the script, measures nothing"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.chunk:
        fused_loss.TARGETS_PER_CHUNK["cpu"] = options.chunk
    widths = TINY if options.tiny else (HIDDEN, VOCABULARY)
    for is_half in (True, False):
        for targets in options.targets:
            line = report(targets, is_half=is_half, widths=widths, rounds=options.rounds)
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
