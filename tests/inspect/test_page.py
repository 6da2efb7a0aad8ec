"""The page of samples is one file that needs nothing else and obeys no row."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from smolvlm.inspect.page import MAX_PACKS_SHOWN, write_inspect_page
from smolvlm.inspect.records import InspectedSample, PackFill, PackSummary
from smolvlm.records import Example

PACK = PackFill(num_tokens=3000, budget_tokens=4000, num_tiles=32, budget_tiles=64)


@pytest.fixture
def page(tree: Example, inspect: Callable[[Example], InspectedSample], tmp_path: Path) -> str:
    path = tmp_path / "deeper" / "inspect.html"
    summary = PackSummary(packs=(PACK,) * (MAX_PACKS_SHOWN + 3), num_samples=12)
    assert (
        write_inspect_page([inspect(tree)], path=path, title="a & b.yaml", summary=summary) == path
    )
    return path.read_text(encoding="utf-8")


def test_it_needs_nothing_else(page: str) -> None:
    without_pictures = re.sub(r"data:image/[a-z]+;base64,[\w+/=]*", "data:", page)
    assert not re.findall(
        r"https?:|//|@import|<script|<link|url\((?!data:)|src=\"(?!data:)", without_pictures
    )
    assert "default-src 'none'" in page


def test_where_a_part_is_shown_it_says_of_how_many(page: str) -> None:
    assert '<p class="lede">1 of 12 samples, ' in page


def test_the_words_of_rows_are_escaped(page: str) -> None:
    text = re.sub(r"<[^>]*>", "", page)
    assert "<script>alert(1)</script>" in html.unescape(text)
    assert "<" not in text
    assert "<script" not in page
    assert "a &amp; b.yaml" in text
    assert "\\x1b[31m" in text


def test_every_tile_is_embedded_once_and_used_in_the_grid_and_in_the_text(page: str) -> None:
    for tile in range(13):
        assert page.count(f".s1-0-{tile} {{ background-image: url(data:image/png;base64,") == 1
        assert len(re.findall(rf'class="[^"]*\bs1-0-{tile}\b', page)) == 2
    assert "3 x 4 tiles and the whole view" in page


def test_hovering_tells_place_id_position_scope_and_prediction(page: str, tree: Example) -> None:
    last = int(tree.predict_from[0])
    expected = (
        f"token {last} · id {tree.input_ids[last]} · position {tree.position_ids[last]} · scope_end"
    )
    (detail,) = re.findall(rf'data-detail="({expected}[^"]*)"', page)
    assert detail.endswith("predicts “ Coffee”")


def test_learned_tokens_are_marked(page: str, tree: Example) -> None:
    assert len(re.findall(r'<span class="t assistant learned" data-detail', page)) == int(
        tree.learned.sum()
    )


def test_the_tree_and_the_packs_are_drawn(page: str) -> None:
    assert len(re.findall(r'class="part (trunk|branch)"', page)) == 3
    assert 'class="scope"' in page
    assert "75.0\N{NO-BREAK SPACE}% filled" in page
    assert f"The first {MAX_PACKS_SHOWN} are drawn, 3 more packs not." in page


def test_a_conversation_without_pictures_needs_no_summary(
    make_example: Callable[..., Example],
    row_type: Callable[..., object],
    inspect: Callable[[Example], InspectedSample],
    tmp_path: Path,
) -> None:
    sample = inspect(make_example(row_type(question="Two and two?", answer="Four.")))
    page = write_inspect_page([sample], path=tmp_path / "page.html", title="text").read_text(
        encoding="utf-8"
    )
    assert 'class="part conversation"' in page
    assert "Packs" not in page
