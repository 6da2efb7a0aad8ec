"""What inspection hands to terminal and page: a sample, and how full the packs are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt8

from smolvlm.datasets.encoding.chat import TokenRole
from smolvlm.records import Grid, TileRef

TilePixels = UInt8[np.ndarray, "tile 3 side side"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRun:
    """One token; or the image tokens of one slot, which are alike."""

    start: int
    """Place of the first token in the sample."""
    count: int
    token_id: int
    text: str
    """Of one token."""
    role: TokenRole
    is_learned: bool
    position_id: int
    """Of the first token."""
    scope_end: int
    tile: TileRef | None
    """The tile whose features these tokens become, the first of them where frames are averaged;
    None for text."""
    times_s: tuple[float, ...]
    """When the frames are shown whose features, or their mean, these tokens become; empty for text
    and pictures."""

    @property
    def num_tiles(self) -> int:
        return 0 if self.tile is None else max(len(self.times_s), 1)


def run_label(run: TokenRun) -> str:
    """Return what stands for a run of image tokens: `64 x <image>`, and of which frames they are
    the mean."""
    label, times_s = f"{run.count} x {run.text}", run.times_s
    if len(times_s) < 2:
        return label
    return f"{label} (mean of {len(times_s)} frames, {times_s[0]:.2f} to {times_s[-1]:.2f} s)"


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePart:
    """A stretch of a sample: the trunk, which all branches see, or one conversation's tokens."""

    where: str | None
    """`file:row`; None for the trunk."""
    start: int
    end: int
    runs: tuple[TokenRun, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedTarget:
    """One token that is learned."""

    predict_from: int
    target_id: int
    text: str
    weight: float
    conversation: int


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedPicture:
    """One picture of a sample, as it is cut."""

    name: str
    grid: Grid
    tiles: TilePixels | None
    """Its pixels, row by row and the global view last; None where they were not decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedClip:
    """One clip of a sample, as its frames are shown."""

    name: str
    times_s: tuple[float, ...]
    """Presentation time of each frame."""
    duration_s: float
    """Of the whole clip."""
    slot_sizes: tuple[int, ...]
    """How many frames each place in the text shows the mean of."""
    tiles: TilePixels | None
    """One a frame; None where they were not decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedSample:
    """One sample, ready to be drawn."""

    where: tuple[str, ...]
    sources: tuple[str, ...]
    trunk: SamplePart | None
    """None for a plain conversation."""
    branches: tuple[SamplePart, ...]
    """One a conversation."""
    targets: tuple[InspectedTarget, ...]
    media: tuple[InspectedPicture | InspectedClip, ...]
    scope_end: Int32[np.ndarray, " seq"]
    num_tiles: int
    """Tiles in the text; a picture that stands twice counts twice."""
    num_learned: int

    @property
    def num_tokens(self) -> int:
        return len(self.scope_end)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackFill:
    """How full one pack is."""

    num_tokens: int
    budget_tokens: int
    num_tiles: int
    budget_tiles: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PackSummary:
    """How full a run's packs are."""

    packs: tuple[PackFill, ...]
    num_samples: int = 0
    """Samples of the epoch; 0 where they are not counted."""

    @property
    def token_fill(self) -> float:
        """Share of the token budget that carries tokens; 0 without packs."""
        return sum(p.num_tokens for p in self.packs) / max(
            sum(p.budget_tokens for p in self.packs), 1
        )

    @property
    def tile_fill(self) -> float:
        return sum(p.num_tiles for p in self.packs) / max(
            sum(p.budget_tiles for p in self.packs), 1
        )
