"""`python scripts/docs_site.py [--serve PORT]`: build the documentation site into build/site.

In: `mkdocs.yml`, `docs/`, and the pages of the root that the site shows too. They are laid side by
side in `build/docs`, where a link that leads out of `docs/` leads to the page's place in the site,
or to a copy of the file: the same text works on GitHub and here, and nothing is copied by hand.
Out: the site, and exit status 1 where a link or an anchor leads nowhere, a page is missing in the
navigation, Markdown was left unrendered, or a page would load something from another host.
"""

import argparse
import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
"""A page of the root -> its name in the site. The README's place is that of docs/index.md, which is
shorter."""
FILES = "files"
"""Folder of the site that holds copies of other files that pages link to."""
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_CODE = re.compile(r"^( *)```.*?^\1```|(?<!`)`[^`\n]+`(?!`)", re.MULTILINE | re.DOTALL)
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|srcset|data)="""
    r"""["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?![^>]*\brel=["']?canonical)[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)""",
    re.IGNORECASE,
)
_STYLE_LOADS = re.compile(
    r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)""", re.IGNORECASE
)
_UNRENDERED = re.compile(r"```|\|---\||\n(?:[-*]|\d+\.) \S.*")


def staged_links(text: str, *, page: str, root: Path = ROOT) -> tuple[str, set[str]]:
    """Return a page's text with links that hold in the site, and the files they need copied.

    Args:
        text: Markdown, with links as they hold in the repository.
        page: the page's path in the repository.
        root: the repository.
    """
    here = _place(page)
    copied: set[str] = set()

    def led(match: re.Match[str]) -> str:
        opening, target, closing = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        file = os.path.normpath(os.path.join(os.path.dirname(page), target))
        if not (root / file).is_file():
            return match[0]  # the build says that it is not there
        place = _place(file)
        if place.startswith(f"{FILES}/"):
            copied.add(file)
        return f"{opening}{os.path.relpath(place, os.path.dirname(here) or '.')}{closing}"

    pieces, end = [], 0
    for code in _CODE.finditer(text):
        pieces += [_LINK.sub(led, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, _LINK.sub(led, text[end:])]), copied


def _place(file: str) -> str:
    """Return where a file of the repository is in the site's pages."""
    if file in ROOT_PAGES:
        return ROOT_PAGES[file]
    return file.removeprefix("docs/") if file.startswith("docs/") else f"{FILES}/{file}"


def stage(pages: Path = PAGES) -> None:
    """Lay the site's pages into a folder, which is emptied first."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages)
    for page in page_files():
        text, copied = staged_links((ROOT / page).read_text(encoding="utf-8"), page=page)
        (pages / _place(page)).write_text(text, encoding="utf-8")
        for file in copied:
            (pages / FILES / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, pages / FILES / file)


def page_files() -> list[str]:
    """Return the repository's Markdown files that are pages of the site."""
    docs = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return [*docs, *(page for page in ROOT_PAGES if page != "README.md")]


def pages_of_nav(nav: Any) -> Iterator[str]:
    """Yield the pages that a navigation names, as the site calls them."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_of_nav(entry)


def nav_problems() -> list[str]:
    """Return the pages that the navigation lacks, names twice, or names in vain."""
    text = re.sub(r"!!python\S*", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = list(pages_of_nav(yaml.safe_load(text)["nav"]))
    there = [_place(page) for page in page_files()]
    return [
        *(f"mkdocs.yml: {page} is in no entry of `nav`" for page in there if page not in named),
        *(f"mkdocs.yml: `nav` names {page}, which is no page" for page in {*named} - {*there}),
        *(f"mkdocs.yml: `nav` names {page} twice" for page in there if named.count(page) > 1),
    ]


def page_problems(text: str) -> list[str]:
    """Return what of a built page or style sheet would ask another host, and Markdown in it that
    was not rendered."""
    loaded = [*(first or second for first, second in _LOADED.findall(text))]
    loaded += _STYLE_LOADS.findall(text)
    shown = re.sub(r"<(pre|code|script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    return [
        *(f"loads {address}" for address in loaded),
        *(f"shows unrendered Markdown: {found[:80]!r}" for found in _UNRENDERED.findall(shown)),
    ]


def site_problems(site: Path = SITE) -> list[str]:
    """Return what is wrong with the built files."""
    return [
        f"{path.relative_to(site)}: {problem}"
        for pattern in ("*.html", "*.css")
        for path in sorted(site.rglob(pattern))
        for problem in page_problems(html.unescape(path.read_text(encoding="utf-8")))
    ]


def build() -> list[str]:
    """Build the site and return what is wrong; empty where all is well."""
    if problems := nav_problems():
        return problems
    stage()
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        return ["the build failed, see above"]
    return site_problems()


def main() -> int:
    """Build, say what is wrong, and serve where that was asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve it on 127.0.0.1")
    asked = parser.parse_args()
    problems = build()
    print(
        "\n".join(problems) or f"{SITE.relative_to(ROOT)}: {len(list(SITE.rglob('*.html')))} pages"
    )
    if asked.serve is not None and SITE.is_dir():
        print(f"http://127.0.0.1:{asked.serve}, until Ctrl-C")
        handler = partial(SimpleHTTPRequestHandler, directory=str(SITE))
        ThreadingHTTPServer(("127.0.0.1", asked.serve), handler).serve_forever()
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
