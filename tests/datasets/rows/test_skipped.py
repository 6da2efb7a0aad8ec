"""What is caught, what is counted, and when it is too much."""

import pytest

from smolvlm.datasets.rows.skipped import BadSamples
from smolvlm.errors import SampleError
from smolvlm.records import SkippedRow


def fail(number: int, where: str | None = None) -> None:
    reason = ("one thing", "another", "a third", "a fourth")[number % 4]
    raise SampleError(f"{reason} in picture{number}.png", where=where, fix="mend it")


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


def test_a_single_error_is_raised_with_the_choice_to_skip_it() -> None:
    bad = BadSamples(policy="error", max_fraction=1.0)
    bad.attempt(lambda: fail(1, where="own:1"), where="rows:1")
    text = r"^own:1: another in picture1.png\n  fix: mend it; or set `on_bad_sample: skip`$"
    with pytest.raises(SampleError, match=text):
        bad.settle()


def test_several_errors_are_raised_together_each_cause_once() -> None:
    bad = caught(BadSamples(policy="error", max_fraction=0.9), 0, 4, 1, 8, 2)
    bad.attempt(lambda: None, where="rows:9")
    with pytest.raises(SampleError) as raised:
        bad.settle()
    assert str(raised.value) == (
        "5 of 6 rows cannot be used; the first:\n"
        "- rows:0: one thing in picture0.png (and 2 more rows like it)\n  fix: mend it\n"
        "- rows:1: another in picture1.png\n  fix: mend it\n"
        "- rows:2: a third in picture2.png\n  fix: mend it\n"
        "  fix: correct the rows, or set `on_bad_sample: skip`"
    )


def test_skipping_is_offered_with_the_share_that_it_takes() -> None:
    bad = caught(BadSamples(policy="error", max_fraction=0.01), 1, 2)
    bad.attempt(lambda: None, where="rows:3")
    fix = "correct the rows, or set `on_bad_sample: skip` and raise `data.max_bad_fraction` to "
    refusal = bad.refusal()
    assert refusal is not None
    assert refusal.fix == f"{fix}0.6667 or more"
    share = float(refusal.fix.split()[-3])
    assert caught(BadSamples(policy="skip", max_fraction=share, num_rows=1), 1, 2).refusal() is None


def test_what_no_policy_bears_is_not_offered_to_be_skipped() -> None:
    for policy in ("error", "skip"):
        bad = caught(BadSamples(policy=policy, max_fraction=1.0), 1, 2)
        refusal = bad.refusal(needs_a_row=True)
        assert refusal is not None
        assert "on_bad_sample" not in str(refusal)
        assert "max_bad_fraction" not in str(refusal)


def test_skipped_rows_keep_their_place_and_reason() -> None:
    bad = BadSamples(policy="skip", max_fraction=1.0)
    bad.attempt(lambda: fail(1, where="own:1"), where="rows:1")
    caught(bad, 2, 5)
    bad.settle()
    another = "another in picture{}.png"
    assert bad.skipped == [
        SkippedRow(where="own:1", reason=another.format(1)),
        SkippedRow(where="rows:2", reason="a third in picture2.png"),
        SkippedRow(where="rows:5", reason=another.format(5)),
    ]
    assert len(bad.reasons()) == 3
    assert [(cause.where, cause.num_rows) for cause in bad.causes()] == [
        ("own:1", 2),
        ("rows:2", 1),
    ]


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
        r"1 x another in \S+; 1 x(.|\n)*raise `data\.max_bad_fraction` to 0\.2223 or more$",
    ):
        bad.settle()


def test_a_source_that_needs_a_row_is_not_left_out_whole_whatever_share_is_allowed() -> None:
    whole = caught(BadSamples(policy="skip", max_fraction=1.0), 1, 2)
    whole.settle()
    with pytest.raises(SampleError, match="2 of 2 rows cannot be used, so nothing of it is left"):
        whole.settle(needs_a_row=True)
    whole.attempt(lambda: None, where="rows:3")
    whole.settle(needs_a_row=True)
