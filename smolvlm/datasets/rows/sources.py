"""A source: rows in one file or several, where their pictures lie, and which rows are used.

`SourceSpec` is what a mixture's entry becomes (`mixture.py`); `Sampling` is the pure rule that
picks rows by number. The choice depends on the number of rows and the seed alone, so the same
mixture trains on the same rows everywhere.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from smolvlm.config.row_files import RowFormat
from smolvlm.datasets.rows.row_filter import RowFilter
from smolvlm.errors import ConfigError

MAX_ROW_BYTES = 128 << 20
"""Of a row as it is read, unless a run says otherwise (`data.max_row_bytes`)."""
Modality = Literal["text", "image", "multiimage", "video"]
MediaMarkers = Literal["plain", "distinct"]
UrlPolicy = Literal["none", "public", "all"]
"""Which addresses are fetched: none, those of public servers, or those of this machine's network
too."""
BadSamplePolicy = Literal["error", "skip"]
Columns = Mapping[str, str | tuple[str, ...]]
"""Our name of a column -> its name in the file, or several."""
SamplingKind = Literal["all", "first", "end", "random"]

_STRATEGY = re.compile(r"^(first|end|last|random):([0-9]{1,18}(?:\.[0-9]{1,18})?)(%?)$")
_STRATEGY_FORMS = (
    "write `all`, `first:N`, `first:P%`, `end:N`, `end:P%`, `last:N`, `last:P%`, `random:N` or "
    "`random:P%`"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Which rows of a source are used."""

    kind: SamplingKind = "all"
    amount: Fraction = Fraction(0)
    """A number of rows, or a percentage of them; unused for `all`."""
    is_percent: bool = False

    def count(self, num_rows: int) -> int:
        """Return how many of `num_rows` rows are used; more than there are is all.

        P % is max(1, ceil(n * P / 100)).
        """
        if self.kind == "all":
            return num_rows
        wanted = (
            max(1, math.ceil(num_rows * self.amount / 100)) if self.is_percent else int(self.amount)
        )
        return min(num_rows, wanted)

    def rows(self, num_rows: int, *, seed: int) -> Sequence[int]:
        """Return the 0-based numbers of the rows used, ascending and distinct.

        Args:
            num_rows: rows in the source.
            seed: of the `random` kind; the others ignore it.
        """
        count = self.count(num_rows)
        if self.kind == "end":
            return range(num_rows - count, num_rows)
        if self.kind == "random":
            return sorted(random.Random(seed).sample(range(num_rows), count))
        return range(count)


def file_columns(columns: Columns, ours: str) -> tuple[str, ...]:
    """Return what the file calls one of our columns: our own name where the source says nothing."""
    names = columns.get(ours, ours)
    return (names,) if isinstance(names, str) else names


def parse_sampling(strategy: str) -> Sampling:
    """Return the rule that a `sampling_strategy` names: `all`, `first:1000`, `random:2.5%`.

    Raises:
        ConfigError: an unknown strategy, a fractional or zero number of rows, or a percentage
            outside (0, 100].
    """
    text = strategy.strip().lower()
    if text == "all":
        return Sampling()
    match = _STRATEGY.match(text)
    if match is None:
        raise ConfigError(f"unknown sampling strategy {strategy[:60]!r}", fix=_STRATEGY_FORMS)
    kind, amount, percent = match[1], Fraction(match[2]), match[3] == "%"
    if percent and not 0 < amount <= 100:
        raise ConfigError(
            f"{strategy!r} is no percentage above 0 and up to 100",
            fix="use `repeat` to see rows more often",
        )
    if not percent and (amount.denominator != 1 or amount < 1):
        raise ConfigError(f"{strategy!r} is no whole number of rows above 0", fix=_STRATEGY_FORMS)
    kinds: dict[str, SamplingKind] = {
        "first": "first",
        "end": "end",
        "last": "end",
        "random": "random",
    }
    return Sampling(kind=kinds[kind], amount=amount, is_percent=percent)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSpec:
    """One entry of a mixture, checked and with its paths resolved."""

    name: str
    """What evaluation and reports call it."""
    path: Path
    """The file of rows, or the first of several, absolute; for a data set of the hub a stand-in."""
    label: str
    """The file as the mixture wrote it: the `file` of every `file:row`."""
    more_files: tuple[Path, ...] = ()
    """Where the mixture names several files by a pattern: those after the first, in order."""
    split: str | None = None
    """Of a Hugging Face data set."""
    format: RowFormat
    media_root: Path
    """Folder that relative paths of pictures and clips start from."""
    media_url: str | None = None
    """The address that they start from in its place, without a slash at its end."""
    allow_outside_root: bool = False
    """Whether rows may name media that lie elsewhere: by `..`, by links, by absolute paths."""
    urls: UrlPolicy = "none"
    """By which addresses outside `media_url` rows may name media."""
    modality: Modality | None = None
    """A hint only; what a row holds decides."""
    row_filter: RowFilter = field(default_factory=RowFilter)
    """Which rows there are for the sampling to choose from."""
    sampling: Sampling = field(default_factory=Sampling)
    repeat: float = 1
    """How many times an epoch goes through the rows used; of a fraction, other rows each epoch."""
    weight: float | None = None
    """Share of the mix relative to the other sources' weights, in rows; None where no source has
    one."""
    source_fps: float = 1.0
    """Frames a second of clips that are given as frames: folders and lists of pictures."""
    columns: Columns = field(default_factory=dict)
    """Our name of a column (`question`, `images`, ...) -> its name in the file, or several names:
    texts are joined by newlines, media are listed."""
    not_read: frozenset[str] = frozenset()
    """Keys of rows, turns and blocks that are left alone on purpose."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Our name of a column -> the text that it has in every row: the question about captions, say,
    or a system turn."""
    first_option_index: int | None = None
    """The number by which answers mean the first of the lettered options; None where they name
    options by letters or words."""
    keeps_mark_newlines: bool = False
    """Whether the newline beside a mark that is alone on its line is said to the model."""
    media_markers: MediaMarkers = "plain"
    """What marks the places of media in a user's text: `<image>` or `<|image_token|>`, likewise for
    clips."""
    max_row_bytes: int = MAX_ROW_BYTES
    """Of one row as it is read."""
    seed: int = 0
    """Of `random` sampling."""
    on_bad_sample: BadSamplePolicy | None = None
    """None follows the run's `data.on_bad_sample`."""
    metrics: tuple[str, ...] = ()
    """What answers are scored by where the source is held out; none follows `eval.metric`."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the rows."""
        return (self.path, *self.more_files)
