"""Whether there is memory for a copy, by what the system and the container say."""

from pathlib import Path

import pytest

from smolvlm.train.memory import has_memory_for

GB = 10**9


def system(root: Path, *, available_kb: int | None, **limits: str) -> Path:
    (root / "proc").mkdir()
    if available_kb is not None:
        (root / "proc/meminfo").write_text(
            f"MemTotal:       99999999 kB\nMemAvailable:   {available_kb} kB\n"
        )
    for name, text in limits.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("memory_", "memory.", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_as_much_again_must_be_free(tmp_path: Path) -> None:
    root = system(tmp_path, available_kb=4 * GB // 1024)
    assert has_memory_for(int(1.9 * GB), root=root)
    assert not has_memory_for(int(2.1 * GB), root=root)


@pytest.mark.parametrize(
    ("limits", "is_enough"),
    [
        ({"memory_max": "3000000000\n", "memory_current": "2500000000\n"}, False),
        ({"memory_max": "6000000000\n", "memory_current": "2500000000\n"}, True),
        ({"memory_max": "max\n", "memory_current": "2500000000\n"}, True),
        (
            {
                "memory__memory_limit_in_bytes": "3000000000",
                "memory__memory_usage_in_bytes": "2500000000",
            },
            False,
        ),
    ],
)
def test_a_container_may_have_less_than_its_machine(
    tmp_path: Path, limits: dict[str, str], is_enough: bool
) -> None:
    root = system(tmp_path, available_kb=100 * GB // 1024, **limits)
    assert has_memory_for(GB, root=root) == is_enough


def test_where_nobody_says_there_is_none(tmp_path: Path) -> None:
    assert not has_memory_for(1, root=system(tmp_path, available_kb=None))
    assert has_memory_for(1) == Path("/proc/meminfo").exists()
