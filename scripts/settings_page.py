"""Write docs/settings.md from the schema of the run file: `python scripts/settings_page.py`, in an
environment that has this package."""

from pathlib import Path

from smolvlm.config.reference import settings_page

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
PAGE.write_text(settings_page(), encoding="utf-8")
