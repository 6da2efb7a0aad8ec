"""Rows that could not be decoded while training, under `on_bad_sample: skip`."""

from smolvlm.datasets.rows.skipped import BadSamples
from smolvlm.errors import SampleError
from smolvlm.train.batch import PackInfo


class SkippedRows:
    """Counts each row once, in however many epochs it comes."""

    def __init__(self, *, num_rows: int, max_bad_fraction: float) -> None:
        self._bad = BadSamples(policy="skip", max_fraction=max_bad_fraction, num_rows=num_rows)
        self._known: set[str] = set()

    def add(self, info: PackInfo) -> None:
        """Count the rows that a pack lacks.

        Raises:
            SampleError: they have become more than `max_bad_fraction` of the rows.
        """
        new = [row for row in info.skipped if row.where not in self._known]
        self._known.update(row.where for row in new)
        for row in new:
            self._bad.note(SampleError(row.reason, where=row.where), where=row.where)
        if new:
            self._bad.settle()
