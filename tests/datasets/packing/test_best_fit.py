"""Best fit alone: packs filled to the last token, tiles counted, samples in the fullest pack that
holds them."""

import numpy as np
import pytest

from smolvlm.datasets.packing.best_fit import best_fit


@pytest.mark.parametrize(
    ("sizes", "packs"),
    [
        ([(59, 0), (1, 0)], [0, 0]),  # filled to the last token
        ([(60, 0), (1, 0)], [0, 1]),
        (
            [(30, 0), (40, 0), (20, 0)],
            [1, 0, 0],
        ),  # the largest first; the third into the fullest that holds it
        ([(10, 8), (10, 5), (10, 4)], [0, 1, 0]),  # tiles bind
        ([(10, 12), (10, 1), (10, 0)], [0, 1, 0]),  # text fills the pack that has no room for tiles
        (
            [(2, 0), (3, 0), (4, 0), (59, 0)],
            [1, 1, 1, 0],
        ),  # small ones as they come, behind the large
    ],
)
def test_samples_go_into_the_fullest_pack_that_holds_them(
    sizes: list[tuple[int, int]], packs: list[int]
) -> None:
    tokens, tiles = np.array(sizes, np.int32).T
    assert best_fit(tokens, tiles, max_tokens=60, max_tiles=12).tolist() == packs
