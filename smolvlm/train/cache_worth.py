"""Whether keeping a frozen tower's features pays in a run, and from when on, in one line.

In: how often the run shows its tiles (`TileUse`), what an entry takes on the disk, what a tile
takes to compute, to keep and to read back. Out: numbers and words. Whether features are kept at all
follows from the plan alone, never from what was measured: two starts of a run do the same.
"""

from dataclasses import dataclass
from itertools import accumulate

from smolvlm.config.method import DpoMethod
from smolvlm.config.schema import RunConfig, TrainConfig
from smolvlm.datasets.builder import PlannedData
from smolvlm.datasets.packing.tile_use import TileUse
from smolvlm.disk.disk_space import free_bytes, shown_bytes
from smolvlm.model.feature_folder import entry_bytes
from smolvlm.model.feature_timing import DiskTimes, disk_times
from smolvlm.train.run_model import RunModel

TITLE = "vision cache"


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheWorth:
    """What keeping features takes, and saves."""

    use: TileUse
    feature_bytes: int
    """Of a tile."""
    compute_s: float | None = None
    """Of a tile; None where nobody knows."""
    disk: DiskTimes | None = None
    """None where nobody knows."""
    max_bytes: int | None = None
    """What may be kept; None is all."""
    free_bytes: int | None = None
    """Of the disk; None where nobody knows."""
    is_asked_for: bool = False
    """Whether the run file names a folder, for later runs to share."""
    num_kept: int = 0
    """Tiles that were kept before."""

    @property
    def num_bytes(self) -> int:
        """What all of the run's tiles take on the disk."""
        return self.use.num_distinct * entry_bytes(self.feature_bytes)

    @property
    def kept_share(self) -> float:
        """Share of the tiles that there is room for."""
        limits = [limit for limit in (self.max_bytes, self.free_bytes) if limit is not None]
        return min(1.0, min(limits, default=self.num_bytes) / max(self.num_bytes, 1))

    def saved_s(self) -> list[float]:
        """Return what is saved by the end of each epoch, seconds of one device; negative is lost.

        Without times to go by it is nothing.
        """
        if self.compute_s is None or self.disk is None:
            return []
        saved: list[float] = []
        for shown in accumulate(self.use.num_shown):
            new = min(self.use.num_distinct, shown)
            read = (shown - new) * (self.compute_s - self.disk.read_s)
            saved.append(self.kept_share * (read - new * self.disk.write_s))
        return saved

    def paying_epoch(self) -> int | None:
        """Return the first epoch by whose end more was saved than lost, counted from 1."""
        return next((epoch for epoch, saved in enumerate(self.saved_s(), 1) if saved > 0), None)

    def as_object(self) -> dict[str, object]:
        """Return it in JSON's types: tiles, bytes, epochs."""
        return {
            "tiles": self.use.num_distinct,
            "shown": self.use.total_shown,
            "bytes": self.num_bytes,
            "kept_share": self.kept_share,
            "is_written": bool(self.use.num_repeated) or self.is_asked_for,
            "pays_from_epoch": self.paying_epoch(),
        }

    def line(self) -> str:
        """Return what is to be said of it."""
        tiles = f"{self.use.num_distinct:,} tiles"
        size = f"{shown_bytes(self.num_bytes)} for {tiles}"
        if not self.use.num_repeated:
            return f"{TITLE:<16}{self._without_use(size)}"
        parts = [f"{size}, shown {self.use.total_shown:,} times"]
        if self.num_kept:
            parts[0] += f" ({self.num_kept:,} are there)"
        if self.kept_share < 1:
            parts.append(f"there is room for {self.kept_share:.0%} of them")
        if self.compute_s is not None and self.disk is not None:
            parts += [self._times(self.compute_s, self.disk), self._pays()]
        return f"{TITLE:<16}{'; '.join(parts)}"

    def _without_use(self, size: str) -> str:
        if self.is_asked_for:
            return f"{size}, for later runs: this one shows none twice"
        if self.num_kept:
            return f"{self.num_kept:,} tiles are there, which are read; this run shows none twice"
        return (
            "not written: no tile is shown twice; data.vision_cache_dir keeps "
            f"{size} for later runs"
        )

    @staticmethod
    def _times(compute_s: float, disk: DiskTimes) -> str:
        return (
            f"one is read back in {shown_ms(disk.read_s)} and computed in {shown_ms(compute_s)} "
            "or more"
        )

    def _pays(self) -> str:
        epoch, saved = self.paying_epoch(), self.saved_s()[-1]
        if epoch is None:
            return "it does not pay: set data.vision_cache: false"
        when = "within the first epoch" if epoch == 1 else f"from epoch {epoch} on"
        return f"pays {when}, {_shown_s(saved)} of computing saved in all"


def tile_use_of(train: TrainConfig, planned: PlannedData) -> TileUse:
    """Return how often a run shows its tiles."""
    method = train.method
    is_judged_before = (
        isinstance(method, DpoMethod)
        and method.needs_reference
        and method.reference == "precomputed"
        and method.reference_model is None
    )
    return TileUse.of(planned.plan, planned.measured.lengths, is_shown_before=is_judged_before)


def worth_of_run(
    config: RunConfig, run_model: RunModel, use: TileUse, *, peak_flops: float
) -> CacheWorth:
    """Return what a run's cache takes and saves; its disk is measured.

    Args:
        config: the settings.
        run_model: with a cache for its held-out rows at least.
        use: of the run.
        peak_flops: of its device, FLOPs a second.
    """
    cache, data = run_model.held_out_cache, config.data
    assert cache is not None
    feature_bytes, folder = cache.layout.num_bytes, cache.path.parent
    disk = None
    if run_model.vision_cache is not None and use.num_repeated:
        disk = disk_times(folder, feature_bytes)
    return CacheWorth(
        use=use,
        feature_bytes=feature_bytes,
        compute_s=run_model.cost.per_tile / peak_flops,
        disk=disk,
        max_bytes=None if data.vision_cache_max_gb is None else int(data.vision_cache_max_gb * 1e9),
        free_bytes=free_bytes(folder),
        is_asked_for=data.vision_cache_dir is not None,
        num_kept=cache.count() if folder.is_dir() else 0,
    )


def shown_ms(seconds: float) -> str:
    """Return `0.02 ms`, `1.3 ms` or `480 ms`."""
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.1 else f"{seconds * 1e3:,.0f} ms"


def _shown_s(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
