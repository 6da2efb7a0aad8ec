"""The tables that charts are drawn from, split so that no number of a held-out chart is ever
trained on.

In: the `bokeh-sampledata` wheel of the package index (its code BSD-3-Clause; never imported). Out:
two tables, both in the public domain, each in two parts. Bars are unemployment rates of counties of
the United States in 2009 (Bureau of Labor Statistics): every fifth county is held out. Lines are
daily closing prices of four stocks (Quandl WIKI, adjusted for splits): the days from 2010 on are
held out. The wheel's other tables have terms of their own (its `licenses` folder lists them) and
are not touched.
"""

import csv
import gzip
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smolvlm.package_index import Wheel, fetch_wheel

CHART_WHEEL = Wheel(
    name="bokeh-sampledata",
    version="2026.1",
    sha256="f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
    size_mb=13,
)
HELD_OUT_FROM = "2010-01-01"
HELD_OUT_EVERY = 5
TICKERS = ("AAPL", "GOOG", "IBM", "MSFT")
_FOLDER = "bokeh_sampledata/_data"

Split = Literal["train", "eval"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One number of a table and the row it stands in."""

    row: str
    """Name of the row, unique over both tables: `county 01001`, `AAPL 2004-05-06`."""
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """One split's part of both tables."""

    counties: tuple[Cell, ...]
    """Unemployment rates, percent, all above 0."""
    prices: dict[str, tuple[Cell, ...]]
    """Ticker -> adjusted closing prices in dollars, in order of days."""


def read_tables(split: Split) -> Tables:
    """Return one split's part of both tables, fetching the wheel on the first call.

    Raises:
        ConfigError: the wheel could not be downloaded.
    """
    wheel_file = fetch_wheel(CHART_WHEEL)
    counties = [
        Cell(row=f"county {line[1]}{line[2]}", value=float(line[8]))
        for line in _lines(wheel_file, "unemployment09.csv.gz")
    ]
    prices: dict[str, list[Cell]] = {ticker: [] for ticker in TICKERS}
    for ticker, day, *_, adjusted in _lines(wheel_file, "stocks.csv.gz")[1:]:
        if ticker in prices and (day >= HELD_OUT_FROM) == (split == "eval"):
            prices[ticker].append(Cell(row=f"{ticker} {day}", value=float(adjusted)))
    return Tables(
        counties=tuple(
            cell
            for number, cell in enumerate(counties)
            if (number % HELD_OUT_EVERY == 0) == (split == "eval")
        ),
        prices={
            ticker: tuple(sorted(cells, key=lambda cell: cell.row))
            for ticker, cells in prices.items()
        },
    )


def _lines(wheel_file: Path, name: str) -> Sequence[list[str]]:
    with zipfile.ZipFile(wheel_file) as archive:
        text = gzip.decompress(archive.read(f"{_FOLDER}/{name}")).decode("utf-8")
    return [line for line in csv.reader(io.StringIO(text)) if line]
