"""The documentation site: links that hold in both places, a navigation that has every page, and a
build that fails where it should. `make lint` builds the site itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.docs_site import nav_problems, page_files, page_problems, pages_of_nav, staged_links


@pytest.mark.parametrize(
    ("page", "text", "staged"),
    [
        ("docs/a.md", "[x](../CHANGELOG.md#unreleased)", "[x](changelog.md#unreleased)"),
        ("docs/decisions/README.md", "[x](../results.md)", "[x](../results.md)"),
        ("docs/decisions/README.md", "[x](../../README.md)", "[x](../index.md)"),
        (
            "CONTRIBUTING.md",
            "[x](docs/design.md), [y](SECURITY.md)",
            "[x](design.md), [y](reporting.md)",
        ),
        ("docs/a.md", "[x](https://a.b/../README.md), [y](#part)", None),
        ("docs/a.md", "`[x](../README.md)`\n\n```\n[x](../README.md)\n```", None),
        ("docs/a.md", "[x](gone.md)", None),
    ],
)
def test_links_lead_to_places_of_the_site(page: str, text: str, staged: str | None) -> None:
    assert staged_links(text, page=page) == (staged or text, set())


def test_other_files_are_copied() -> None:
    text, copied = staged_links("[x](../examples/video.ipynb)", page="docs/a.md")
    assert text == "[x](files/examples/video.ipynb)"
    assert copied == {"examples/video.ipynb"}


def test_the_navigation_has_every_page() -> None:
    assert nav_problems() == []
    assert len(page_files()) > 30


def test_pages_of_a_navigation() -> None:
    nav = ["a.md", {"B": "b.md"}, {"C": ["c.md", {"D": ["d.md"]}]}]
    assert list(pages_of_nav(nav)) == ["a.md", "b.md", "c.md", "d.md"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<script src="../assets/a.js"></script><img src=figures/a.svg>', []),
        ('<a href="https://example.org">out</a>', []),
        ('<link rel="canonical" href="https://example.org/">', []),
        ('<script src="https://cdn.example/a.js">', ["loads https://cdn.example/a.js"]),
        ("<img src=//cdn.example/a.png>", ["loads //cdn.example/a.png"]),
        ('<link rel="stylesheet" href="https://f.example/c">', ["loads https://f.example/c"]),
        ("@font-face{src:url(https://f.example/i.woff2)}", ["loads https://f.example/i.woff2"]),
        ("<p>two:\n- a</p>", ["shows unrendered Markdown: '\\n- a</p>'"]),
        ("<pre>two:\n- a\n```</pre>", []),
        ("<p>```yaml</p>", ["shows unrendered Markdown: '```'"]),
    ],
)
def test_what_is_wrong_with_a_built_page(text: str, found: list[str]) -> None:
    assert page_problems(text) == found


@pytest.mark.parametrize("link", ["there.md", "gone.md", "there.md#gone"])
def test_a_link_to_nowhere_fails_the_build(link: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n[x]({link})\n")
    (tmp_path / "docs" / "there.md").write_text("# There\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\ntheme: {name: material, font: false}\n")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert (done.returncode == 0) is (link == "there.md"), done.stdout
