"""What is caught, what is counted, and when it is too much."""

import pytest

from smolvlm.datasets.rows.skipped import BadSamples
from smolvlm.errors import SampleError
from smolvlm.records import SkippedRow


def fail(number: int, where: str | None = None) -> None:
    raise SampleError(f"reason {number % 2}", where=where, fix="fix it")


def caught(bad: BadSamples, *numbers: int) -> BadSamples:
    for number in numbers:
        assert bad.attempt(lambda: fail(number), where=f"rows:{number}") is None  # noqa: B023 - called at once
    return bad


def test_a_good_row_comes_back_as_it_is() -> None:
    bad = BadSamples()
    assert bad.attempt(lambda: 7, where="rows:1") == 7
    bad.settle()
    assert (bad.num_rows, bad.skipped) == (1, [])


def test_other_errors_are_not_its_business() -> None:
    with pytest.raises(KeyError):
        BadSamples(policy="skip").attempt(lambda: {}["missing"], where="rows:1")


def test_a_single_error_is_raised_as_it_was() -> None:
    bad = BadSamples(policy="error")
    bad.attempt(lambda: fail(1, where="own:1"), where="rows:1")
    with pytest.raises(SampleError, match=r"^own:1: reason 1\n  fix: fix it$"):
        bad.settle()


def test_several_errors_are_raised_together() -> None:
    bad = caught(BadSamples(policy="error"), *range(7))
    bad.attempt(lambda: None, where="rows:8")
    with pytest.raises(SampleError) as raised:
        bad.settle()
    text = str(raised.value)
    assert text.startswith(
        "7 of 8 rows cannot be used; the first:\n- rows:0: reason 0\n  fix: fix it\n- rows:1: "
        "reason 1"
    )
    assert text.count("\n- rows:") == 5
    assert text.endswith("fix: fix the rows, or set `on_bad_sample: skip`")


def test_skipped_rows_keep_their_place_and_reason() -> None:
    bad = BadSamples(policy="skip", max_fraction=1.0)
    bad.attempt(lambda: fail(1, where="own:1"), where="rows:1")
    caught(bad, 2, 3)
    bad.settle()
    assert bad.skipped == [
        SkippedRow(where="own:1", reason="reason 1"),
        SkippedRow(where="rows:2", reason="reason 0"),
        SkippedRow(where="rows:3", reason="reason 1"),
    ]
    assert bad.reasons() == {"reason 1": 2, "reason 0": 1}


@pytest.mark.parametrize(("num_good", "is_borne"), [(8, True), (7, False)])
def test_more_than_the_allowed_share_is_an_error(num_good: int, is_borne: bool) -> None:
    bad = caught(BadSamples(policy="skip", max_fraction=0.2), 1, 2)
    for number in range(num_good):
        bad.attempt(lambda: None, where=f"rows:{number + 3}")
    if is_borne:
        bad.settle()
        return
    with pytest.raises(
        SampleError,
        match=r"2 of 9 rows cannot be used, more than max_bad_fraction=0\.2 allows: "
        r"1 x reason 1; 1 x(.|\n)*raise `data\.max",
    ):
        bad.settle()


def test_a_source_that_needs_a_row_is_not_left_out_whole_whatever_share_is_allowed() -> None:
    whole = caught(BadSamples(policy="skip", max_fraction=1.0), 1, 2)
    whole.settle()
    with pytest.raises(SampleError, match="2 of 2 rows cannot be used"):
        whole.settle(needs_a_row=True)
    whole.attempt(lambda: None, where="rows:3")
    whole.settle(needs_a_row=True)
