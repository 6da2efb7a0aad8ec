"""The one place that catches a `SampleError`, and it counts.

Under `on_bad_sample: error` what was caught is raised again, all findings of a stage together;
under `skip` the rows are left out, counted by reason, and too large a share of them is an error all
the same. No row ever takes another's place. What else could be done than to correct the rows, skip
them or bear more of them, depends on the policy, so it is said here and not by the errors of rows.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Literal, TypeVar

from smolvlm.datasets.rows.causes import Cause, causes_of
from smolvlm.errors import SampleError, located
from smolvlm.records import SkippedRow

Policy = Literal["error", "skip"]
Value = TypeVar("Value")
SHOWN_CAUSES = 5
_SHARE_STEPS = 10_000
"""A share in a fix is rounded up to a whole number of these."""


@dataclass(slots=True)
class BadSamples:
    """What went wrong with the rows of one stage or one source."""

    policy: Policy = "error"
    max_fraction: float = 0.01
    """Of all rows seen, under `skip`."""
    num_rows: int = 0
    skipped: list[SkippedRow] = field(default_factory=list)
    errors: list[SampleError] = field(default_factory=list)
    label: str | None = None
    """What a message about their number calls the source."""

    def attempt(self, work: Callable[[], Value], *, where: str) -> Value | None:
        """Return what `work` returns, or None where it raised a `SampleError`."""
        self.num_rows += 1
        try:
            return work()
        except SampleError as error:
            if error.ends_run:
                with located(where):
                    raise
            self.note(error, where=where)
            return None

    def note(self, error: SampleError, *, where: str) -> None:
        """Count an error that somebody else caught, and name its row where nothing else did."""
        error.where = error.where or where
        self.errors.append(error)
        self.skipped.append(SkippedRow(where=error.where, reason=error.what))

    def settle(self, *, needs_a_row: bool = False) -> None:
        """Raise if the policy does not bear what was caught.

        Args:
            needs_a_row: under `skip`, having skipped all rows is an error whatever `max_fraction`
                says.

        Raises:
            SampleError: as `refusal`.
        """
        if (error := self.refusal(needs_a_row=needs_a_row)) is not None:
            raise error

    def refusal(self, *, needs_a_row: bool = False) -> SampleError | None:
        """Return the error that the policy makes of what was caught, if it does not bear it.

        It is one under `error` if anything was caught, and under `skip` if more than `max_fraction`
        of the rows were, or all.

        Args:
            needs_a_row: as in `settle`.
        """
        if not self.errors:
            return None
        num_bad = len(self.errors)
        share = f"{num_bad} of {self.num_rows} rows cannot be used"
        is_all = num_bad == self.num_rows
        if self.policy == "error":
            skip = None if is_all and needs_a_row else self._how_to_skip()
            if num_bad == 1:
                return _with_choice(self.errors[0], skip)
            fix = f"correct the rows, or {skip}" if skip else "correct the rows"
            return self._error(f"{share}; the first", fix=fix)
        listed = self._listed_causes()
        if is_all and needs_a_row:
            fix = "correct the rows, or take the source out of the mixture"
            return self._error(f"{share}, so nothing of it is left: {listed}; the first", fix=fix)
        if num_bad > self.max_fraction * self.num_rows:
            what = f"{share}, more than max_bad_fraction={self.max_fraction:g} allows: {listed}"
            fix = f"correct the rows, or {self._how_to_bear()}"
            return self._error(f"{what}; the first", fix=fix)
        return None

    def causes(self) -> tuple[Cause, ...]:
        """Return what was wrong, each cause once with its first row, the most frequent first."""
        return causes_of(self.errors)

    def reasons(self) -> Counter[str]:
        """Return how many rows were left out for which reason."""
        return Counter(row.reason for row in self.skipped)

    def _error(self, what: str, *, fix: str) -> SampleError:
        first = "\n".join(f"- {cause}" for cause in self.causes()[:SHOWN_CAUSES])
        return SampleError(f"{what}:\n{first}", kind="bad_rows", where=self.label, fix=fix)

    def _how_to_skip(self) -> str:
        skip = "set `on_bad_sample: skip`"
        is_borne = len(self.errors) <= self.max_fraction * self.num_rows
        return skip if is_borne else f"{skip} and {self._how_to_bear()}"

    def _how_to_bear(self) -> str:
        share = ceil(len(self.errors) / self.num_rows * _SHARE_STEPS) / _SHARE_STEPS
        return f"raise `data.max_bad_fraction` to {min(share, 1):g} or more"

    def _listed_causes(self) -> str:
        causes = self.causes()
        listed = "; ".join(f"{cause.num_rows} x {cause.what}" for cause in causes[:SHOWN_CAUSES])
        more = len(causes) - SHOWN_CAUSES
        return listed + (f"; and {more} more reasons" if more > 0 else "")


def _with_choice(error: SampleError, choice: str | None) -> SampleError:
    """Return a row's error with another thing that can be done about it."""
    if choice is None:
        return error
    fix = f"{error.fix}; or {choice}" if error.fix else choice
    return SampleError(error.what, kind=error.kind, where=error.where, fix=fix)
