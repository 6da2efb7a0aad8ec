"""`smolvlm.media.names`: names in the order in which people count, and what is none of the data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.media.names import is_litter, natural_key

NAMES = st.text(alphabet="ab/. -_()019٣", max_size=12)


@pytest.mark.parametrize(
    "names",
    [
        ["img (1).png", "img (2).png", "img (10).png"],
        ["a1b10", "a10b1"],
        ["frame.png", "frame_2.png", "frame_10.png"],
        ["frame9.jpg", "frame0010.jpg", "frame011.jpg"],
        ["2024-1-9.png", "2024-1-10.png", "2024-11-1.png"],
        ["v1.2.png", "v1.10.png"],
        ["22.5", "22.06", "22.10"],
        ["part2/1.png", "part10/0.png"],
        ["a.png", "a0.png", "a1.png", "b.png"],
        ["01.jpg", "01.png", "1.jpg", "1.png", "2.jpg"],
        ["9" * 5000, "1" + "0" * 5000],  # Python alone would not read such a number
    ],
)
def test_numbers_anywhere_count_as_numbers(names: list[str]) -> None:
    shuffled = names[::-1]
    assert sorted(shuffled, key=natural_key) == names


@given(st.lists(NAMES, unique=True))
def test_any_names_have_one_order(names: list[str]) -> None:
    in_order = sorted(names, key=natural_key)
    turned = names[::-1]
    assert sorted(turned, key=natural_key) == in_order
    assert len({natural_key(name) for name in names}) == len(names)


@given(
    st.text(alphabet="ab ()_-", max_size=5),
    st.integers(0, 10**30),
    st.integers(0, 10**30),
    st.integers(0, 3),
    st.text(alphabet="ab)_", max_size=5),
)
def test_names_that_differ_in_one_number_stand_as_the_numbers_do(
    before: str, one: int, other: int, num_zeros: int, behind: str
) -> None:
    first = natural_key(f"{before}{'0' * num_zeros}{one}{behind}.png")
    second = natural_key(f"{before}{other}{behind}.png")
    if one != other:
        assert (first < second) == (one < other)


@given(st.lists(st.integers(0, 500), min_size=2, max_size=2))
def test_the_first_number_counts_before_the_second(numbers: list[int]) -> None:
    key = natural_key(f"a{numbers[0]}b{numbers[1]}")
    assert key < natural_key(f"a{numbers[0] + 1}b0")
    assert key < natural_key(f"a{numbers[0]}b{numbers[1] + 1}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("._a.png", True),
        (".DS_Store", True),
        (".hidden.png", True),
        ("Thumbs.db", True),
        ("desktop.ini", True),
        ("__MACOSX/a.png", True),
        ("shard/._0001.json", True),
        ("@eaDir/a.png", True),
        ("a.png", False),
        ("./a.png", False),
        ("../a.png", False),
        ("a..png", False),
        ("thumbs.png", False),
    ],
)
def test_what_other_programs_left_is_no_data(name: str, expected: bool) -> None:
    assert is_litter(name) is expected
