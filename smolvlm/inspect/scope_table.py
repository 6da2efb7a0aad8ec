"""The visibility table of a sample as a small drawing: which query (row) sees which key (column).

Drawn row by row from `scope_end` through the rule itself, so a wrong scope is seen at once. The
drawing grows with the number of tokens, hence the limit.
"""

import numpy as np
from jaxtyping import Bool, Int
from markupsafe import Markup

from smolvlm.datasets.encoding.tree import visible

MAX_TOKENS = 600
"""A row costs some 20 characters; larger tables are unreadable besides."""


def scope_svg(scope_end: Int[np.ndarray, " seq"], *, trunk_length: int) -> Markup | None:
    """Return the table as SVG, the trunk's keys in another colour than the branches'.

    None above `MAX_TOKENS`, and where every token is seen to the end: a plain triangle tells
    nothing.
    """
    size = len(scope_end)
    if size > MAX_TOKENS or (scope_end == size).all():
        return None
    table = visible(scope_end)
    is_trunk = np.arange(size) < trunk_length
    paths = {
        "scope-trunk": _path(table & is_trunk[None, :]),
        "scope-own": _path(table & ~is_trunk[None, :]),
    }
    drawn = "".join(f'<path class="{name}" d="{path}"/>' for name, path in paths.items() if path)
    return Markup(
        f'<svg class="scope" viewBox="0 0 {size} {size}" role="img" aria-label="Which token sees '
        "which: rows look, "
        f'columns are looked at"><rect class="scope-frame" width="{size}" '
        f'height="{size}"/>{drawn}</svg>'
    )


def _path(table: Bool[np.ndarray, "query key"]) -> str:
    """Return a path that covers the true cells: a bar a stretch, shared by equal rows."""
    bars: list[str] = []
    row = 0
    while row < len(table):
        height = 1
        while row + height < len(table) and np.array_equal(table[row], table[row + height]):
            height += 1
        edges = np.flatnonzero(
            np.diff(np.concatenate([[False], table[row], [False]]).astype(np.int8))
        )
        bars += [
            f"M{left} {row}h{right - left}v{height}H{left}z"
            for left, right in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        ]
        row += height
    return "".join(bars)
