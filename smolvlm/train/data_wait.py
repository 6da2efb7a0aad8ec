"""A run that waits for its data says so once, and what to set.

In: the share of the time between two log lines that went by waiting, and what making the packs
took, by kind of work. Out: a line, the first time that more than a tenth was waited; the first log
line of a start is left out, since workers begin then.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from smolvlm.datasets.packing.load_times import LoadTimes

MENTIONED_SHARE = 0.1
"""Of the time, from which on waiting is spoken of."""
HELD_BACK = 0.5
"""Of a worker's time, from which on what it waits for is memory."""


@dataclass(kw_only=True, slots=True)
class DataWait:
    """Watches one rank's packs."""

    num_workers: int
    """Of its loader."""
    num_cores: int
    """That the rank has for itself."""
    keeps_features: bool
    """Whether a vision cache spares later epochs the decoding."""
    could_keep_features: bool
    """Whether one would, and is switched off."""
    say: Callable[[str], None]
    _times: LoadTimes = field(default_factory=LoadTimes)
    _is_first: bool = True
    _has_spoken: bool = False

    def add(self, times: LoadTimes) -> None:
        """Add what making a pack took."""
        self._times.add(times)

    def line(self, share: float) -> None:
        """End a log line; say what is to be said.

        Args:
            share: of the time since the last line that was waited, 0 to 1.
        """
        times, self._times = self._times, LoadTimes()
        if self._is_first or self._has_spoken or share <= MENTIONED_SHARE:
            self._is_first = False
            return
        self._has_spoken = True
        cause, cure = self._advice(times)
        self.say(f"note: {share:.0%} of the time waits for data, mostly {cause}: {cure}")

    def _advice(self, times: LoadTimes) -> tuple[str, str]:
        """Return what the wait is made of, and what to set."""
        if self.num_workers and times.room_s > HELD_BACK * (times.room_s + times.total_s):
            return "for memory to load ahead into", "raise data.prefetch_mb"
        parts = {
            "reading files": times.reading_s,
            "decoding pictures and clips": times.decoding_s,
            "reading kept features": times.features_s,
        }
        parts["encoding texts"] = max(times.total_s - sum(parts.values()), 0.0)
        cause = max(parts, key=lambda name: parts[name])
        return cause, "; ".join(self._cures(cause))

    def _cures(self, cause: str) -> list[str]:
        cures: list[str] = []
        if cause == "decoding pictures and clips":
            if self.could_keep_features:
                cures.append("set data.vision_cache: true, and each is decoded once")
            elif self.keeps_features:
                cures.append("the next epoch reads features instead")
        if self.num_workers < self.num_cores:
            more = min(max(2 * self.num_workers, 2), self.num_cores)
            cures.append(f"set train.dataloader_num_workers: {more} ({self.num_workers} now)")
        if not cures:
            cures.append(_OTHER_CURES[cause])
        return cures


_OTHER_CURES = {
    "reading files": "put the rows' media on a faster disk",
    "decoding pictures and clips": "give the run more cores, or lower data.longest_edge_px, "
    "data.fps or data.max_frames",
    "reading kept features": "put data.vision_cache_dir on a faster disk",
    "encoding texts": "give the run more cores",
}
"""Where all cores have a worker."""
