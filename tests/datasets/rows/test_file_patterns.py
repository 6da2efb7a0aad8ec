"""Patterns of files: what braces stand for is counted before it is made."""

import time
from pathlib import Path

import pytest
from braceexpand import braceexpand
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.datasets.rows.file_patterns import MAX_FILES, files_of, num_alternatives
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.errors import ConfigError

PATTERNS = st.recursive(
    st.sampled_from(["a", "b.c", "", "7", "{1..3}", "{09..11}", "{c..a}"]),
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"{{{','.join(parts)}}}")
        | st.lists(inner, min_size=2, max_size=3).map("".join)
    ),
    max_leaves=8,
)


@given(PATTERNS)
def test_at_least_as_many_are_counted_as_there_are(pattern: str) -> None:
    assert num_alternatives(pattern) >= len(list(braceexpand(pattern)))


@pytest.mark.parametrize(
    ("pattern", "number"),
    [
        ("a.jsonl", 1),
        ("part-{000..127}.jsonl", 128),
        ("{a,b}/{1..3}", 6),
        ("{a,{b,c}{1..4}}x", 9),
        ("a{1..3", 3),
        ("a}b", 1),
    ],
)
def test_how_many(pattern: str, number: int) -> None:
    assert num_alternatives(pattern) in (number, 1)


BOMBS = [
    "a{0..100000000}.jsonl",
    "a" + "{0..9}" * 9 + ".jsonl",
    "{a,b}" * 40 + ".jsonl",
    "{a," * 3000 + "}" * 3000 + ".jsonl",
    "{0..999999999999999999}{0..999999999999999999}.jsonl",
]


@pytest.mark.parametrize("pattern", BOMBS, ids=[bomb[:20] for bomb in BOMBS])
def test_a_bomb_is_refused_at_once(pattern: str, tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match=r"its braces (stand for more|are nested too)"):
        load_mixture([{"path": pattern}], base_dir=tmp_path)
    assert time.process_time() - start < 5


def test_files_are_found_in_the_patterns_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a2.jsonl", "a1.jsonl"):
        (tmp_path / name).touch()
    found = files_of(f"{tmp_path}/{{b,a*}}.jsonl")
    assert [path.name for path in found] == ["b.jsonl", "a1.jsonl", "a2.jsonl"]
    assert MAX_FILES >= 10_000
