"""What making a pack took, by kind of work: where a run that waits for data loses its time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields


@dataclass(kw_only=True, slots=True)
class LoadTimes:
    """Seconds of the process that made the pack."""

    total_s: float = 0.0
    """All of it, `room_s` left out."""
    reading_s: float = 0.0
    """The bytes of pictures and clips."""
    decoding_s: float = 0.0
    """Decoding and cutting them."""
    features_s: float = 0.0
    """Reading features from the vision cache."""
    room_s: float = 0.0
    """Waiting until `data.prefetch_mb` had room for the pack."""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add what the block takes to the field of this name."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    def add(self, other: "LoadTimes") -> None:
        """Add another pack's."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
