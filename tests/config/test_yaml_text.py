"""YAML: numbers and words as people mean them, duplicate keys, and errors with their line."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.config.yaml_text import dump_yaml, parse_yaml, read_yaml
from smolvlm.errors import ConfigError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(
        [
            "1e5",
            "1e-4",
            "no",
            "on",
            "0o7",
            "012",
            "1_000",
            "1:30",
            "~",
            "null",
            "<<",
            "2024-01-01",
            "=",
            "\x85",
        ]
    )
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E5", 2e5),
        ("1.0e-5", 1e-5),
        ("-.5", -0.5),
        ("3", 3),
        ("-0", 0),
        ("0x10", 16),
        (".inf", math.inf),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("012", "012"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("", None),
        ("~", None),
        ("'1e-4'", "1e-4"),
        ("[1e-4, no, {a: 1e3}]", [1e-4, "no", {"a": 1e3}]),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_words_and_numbers(text: str, value: Any) -> None:
    parsed = parse_yaml(text, where="x")
    assert parsed == value
    assert type(parsed) is type(value)


@settings(deadline=None)
@given(VALUES)
def test_what_is_written_reads_back_equal(value: Any) -> None:
    text = dump_yaml(value)
    assert parse_yaml(text, where="x") == value


@settings(deadline=None)
@given(VALUES)
def test_what_is_written_reads_back_equal_elsewhere(value: Any) -> None:
    assert yaml.safe_load(dump_yaml(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\nb: 2\na: 3",
            "x:3: cannot read the YAML: the key `a` is written twice\n  fix: keep one of the two",
        ),
        ("s:\n  a: {b: 1, b: 1}", "x:2: cannot read the YAML: the key `b` is written twice"),
        (
            "a:\n\tb: 1",
            "x:2: cannot read the YAML: found character '\\t' that cannot start any token\n  fix: "
            "indent with spaces",
        ),
        ("a: [1, 2\nb: 3", "x:2: cannot read the YAML: "),
        ("a: b: c", "x:1: cannot read the YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "x:2: cannot read the YAML: but found another document"),
        ("a: *gone", "x:1: cannot read the YAML: found undefined alias 'gone'"),
        (
            "a: !!python/object:os.system 1",
            "x:1: cannot read the YAML: could not determine a constructor",
        ),
        ("a: !!int x", "x: cannot read the YAML: invalid literal"),
        ("{[1]: 2}", "x:1: cannot read the YAML: found unhashable key"),
        ("a: \x00", "x: character #x0000 at position 3 is not allowed in YAML"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, where="x")
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file\n  fix: check the path"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="this is a folder, not a file"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 3\)"):
        read_yaml(tmp_path / "latin.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1", encoding="utf-8-sig")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1}


def test_merges_and_numbers_that_take_all_are_refused() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 20)]
    try:  # PyYAML up to 6.0.3 writes out 9^19 keys; from 6.0.4 on it merges each once
        found = parse_yaml("\n".join(lines), where="m.yaml")["a19"]
    except ConfigError as error:
        found = str(error).partition("\n")[0].partition("YAML: ")[2]
    assert found in ({"x": 1}, "more than 1,000,000 keys by merging (`<<`)")
    with pytest.raises(ConfigError, match=r"a number of too many digits\n  fix: write it shorter"):
        parse_yaml("a: " + "9" * 100_000, where="m.yaml")
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}", where="m.yaml")["b"] == {"x": 1, "y": 2}
