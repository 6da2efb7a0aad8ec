"""Seconds of a step on a device, and how often torch.compile made a graph."""

import time
from collections.abc import Callable
from typing import Any

import torch


def seconds_of(work: Callable[[], Any], device: str) -> float:
    """Run something and return its seconds, the device's work included."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: str) -> None:
    """Wait until the device has done all its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    """Forget the most memory that was in use."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float:
    """Return the most memory that tensors took since `reset_peak`, in 10^9 bytes; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0


def held_gb(device: str) -> float:
    """Return the memory that tensors take now, in 10^9 bytes; 0 on a CPU."""
    return torch.cuda.memory_allocated() / 1e9 if device == "cuda" else 0.0


def num_graphs() -> int:
    """Return how many graphs torch.compile has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
