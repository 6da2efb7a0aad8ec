"""What waits for the GPU is counted by place; other warnings are shown as ever."""

import warnings

import pytest

from gpu_check.sync_watch import SyncCount, collected_warnings


def wait() -> None:
    """Warn as PyTorch does under `set_sync_debug_mode("warn")`."""
    warnings.warn("called a synchronizing CUDA operation (Triggered internally ...)", stacklevel=2)


def wait_elsewhere() -> None:
    """Warn from another line."""
    warnings.warn("called a synchronizing CUDA operation", stacklevel=2)


def test_places_are_counted_each_time() -> None:
    count = SyncCount()
    with collected_warnings(count):
        for _ in range(3):
            wait()
        wait_elsewhere()
    assert count.num_in_steps == 4
    often, once = count.listed()
    assert (often["count"], once["count"]) == (3, 1)
    assert often["place"].startswith("gpu_check/test_sync_watch.py:")
    assert often["place"].endswith(" wait")
    assert not often["is_compiling"]


def test_other_warnings_are_not_swallowed() -> None:
    with pytest.warns(UserWarning, match="another matter"), collected_warnings(SyncCount()):
        warnings.warn("another matter", stacklevel=1)
