"""Values and a template to one file that needs nothing else: no network, no script, no font.

Everything that a template prints is escaped, except what our own code has marked as drawn. Besides,
each page forbids itself scripts and connections by a content security policy, should an escape ever
be missed.
"""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from smolvlm.disk.atomic_files import write_text
from smolvlm.pages.token_text import percent, plural

NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def write_page(path: Path, *, template: str, **values: object) -> Path:
    """Fill `templates/<template>` with `values`, write it to `path` and return that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page_text(template, **values))
    return path


def page_text(template: str, **values: object) -> str:
    """Return `templates/<template>` filled with `values`."""
    environment = Environment(
        loader=PackageLoader("smolvlm.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: percent(share).replace(" ", NO_BREAK_SPACE)
    environment.filters["plural"] = plural
    return environment.get_template(template).render(values) + "\n"
