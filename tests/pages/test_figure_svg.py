"""Drawings take colours and font from the page, and bring no address with them."""

import re
from collections import Counter

import pytest

from smolvlm.pages.figure_svg import COLOURS, draw_chart


@pytest.fixture(scope="module")
def svg() -> str:
    def draw(axes, is_narrow: bool) -> None:
        axes.plot([0, 1], [1, 2], color=COLOURS["accent"])
        axes.set_xlabel("narrow, s" if is_narrow else "wide, s")

    return str(draw_chart(draw, name="test", label='a "label" & more', height_px=lambda _: 200))


def test_both_widths_are_drawn_with_real_text(svg: str) -> None:
    assert svg.count("<svg") == svg.count("</svg>") == 2
    assert re.findall(r"<text[^>]*>((?:narrow|wide), s)</text>", svg) == ["wide, s", "narrow, s"]
    assert "font-family" not in svg


def test_colours_are_the_pages(svg: str) -> None:
    assert "var(--accent)" in svg
    assert "var(--soft)" in svg
    assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r'(?:href="|url\()#[^")]*', "", svg))


def test_no_address_and_no_style_of_its_own(svg: str) -> None:
    assert not re.findall(r"https?:|<metadata|<style|<!", svg)


def test_ids_are_unique_and_references_resolve(svg: str) -> None:
    ids = Counter(re.findall(r'\bid="([^"]*)"', svg))
    assert set(ids.values()) == {1}
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= set(ids)


def test_the_label_is_escaped(svg: str) -> None:
    assert 'aria-label="a &#34;label&#34; &amp; more"' in svg
