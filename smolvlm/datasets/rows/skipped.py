"""The one place that catches a `SampleError`, and it counts.

Under `on_bad_sample: error` what was caught is raised again, all findings of a stage together;
under `skip` the rows are left out, counted by reason, and too large a share of them is an error all
the same. No row ever takes another's place.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from smolvlm.errors import SampleError
from smolvlm.records import SkippedRow

Policy = Literal["error", "skip"]
Value = TypeVar("Value")
SHOWN_ERRORS = 5
SHOWN_REASONS = 5


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
            SampleError: `error` and anything was caught, or `skip` and more than `max_fraction` of
                the rows.
        """
        if not self.errors:
            return
        if self.policy == "error":
            if len(self.errors) == 1:
                raise self.errors[0]
            raise SampleError(
                f"{len(self.errors)} of {self.num_rows} rows cannot be used; the first:\n"
                + self._first_errors(),
                kind="bad_rows",
                where=self.label,
                fix="fix the rows, or set `on_bad_sample: skip`",
            )
        is_nothing_left = needs_a_row and len(self.errors) == self.num_rows
        if is_nothing_left or len(self.errors) > self.max_fraction * self.num_rows:
            share = f"{len(self.errors)} of {self.num_rows} rows cannot be used"
            raise SampleError(
                f"{share}, more than max_bad_fraction={self.max_fraction:g} allows: "
                f"{self._listed_reasons()}; "
                f"the first:\n{self._first_errors()}",
                kind="bad_rows",
                where=self.label,
                fix="fix the rows, or raise `data.max_bad_fraction`",
            )

    def reasons(self) -> Counter[str]:
        """Return how many rows were left out for which reason."""
        return Counter(row.reason for row in self.skipped)

    def _listed_reasons(self) -> str:
        reasons = self.reasons().most_common()
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons[:SHOWN_REASONS])
        return listed + (
            f"; and {len(reasons) - SHOWN_REASONS} more reasons"
            if len(reasons) > SHOWN_REASONS
            else ""
        )

    def _first_errors(self) -> str:
        return "\n".join(f"- {error}" for error in self.errors[:SHOWN_ERRORS])
