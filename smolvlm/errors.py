"""Errors that users see: what went wrong, where, and how to fix it.

`ConfigError` speaks of a setting, `SampleError` of a row or a file. Everything else (`ValueError`,
`AssertionError`) is a bug of ours. What raises an error need not know where it is: `located` adds
the row, or the file, to every error that leaves its block. The classes survive pickling and the
re-raise of a data-loader worker, which rebuilds an exception from its message alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from smolvlm.terminal import visible

SampleKind = Literal[
    "missing_media",
    "empty_media",
    "too_large_media",
    "corrupt_media",
    "outside_root",
    "placeholder_mismatch",
    "empty_row",
    "role",
    "over_budget",
    "over_context",
    "wrong_method",
    "changed_row",
    "unread_key",
    "unread_media",
    "too_large_row",
    "too_slow_media",
    "bad_row",
    "bad_file",
    "bad_rows",
    "worker_died",
]
"""What is wrong with a row, a picture, a clip or a file of rows; `smolvlm check` counts by it."""


MAX_LINE_CHARACTERS = 2000
"""Of a message's line; a longer one holds a value of somebody's that is cut in its middle."""


class SmolVLMError(Exception):
    """An error whose text is meant for the user.

    The command line prints it without a traceback, exit status 1.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        what = f"{self.where}: {self.what}" if self.where else self.what
        text = visible(f"{what}\n  fix: {self.fix}" if self.fix else what)
        if len(text) <= MAX_LINE_CHARACTERS:
            return text
        return "\n".join(map(_cut_line, text.split("\n")))

    def __reduce__(self):
        return type(self), (self.what,), {"where": self.where, "fix": self.fix}


def _cut_line(line: str) -> str:
    if len(line) <= MAX_LINE_CHARACTERS:
        return line
    kept = MAX_LINE_CHARACTERS // 2
    return f"{line[:kept]} ... ({len(line) - 2 * kept:,} characters left out) ... {line[-kept:]}"


class ConfigError(SmolVLMError):
    """A setting, or a combination of settings, that cannot work. `where` is `file: section.key`."""


class DriftError(SmolVLMError):
    """What was exported answers otherwise than the model that it is of."""


class SampleError(SmolVLMError):
    """A row, picture or clip that cannot be trained on.

    `where` is `file:row`, rows counted from 1 in the file.
    """

    def __init__(
        self,
        what: str,
        *,
        kind: SampleKind = "bad_row",
        fix: str | None = None,
        where: str | None = None,
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.kind: SampleKind = kind

    @property
    def ends_run(self) -> bool:
        """Whether no `on_bad_sample` bears it: it hinges on a machine's speed."""
        return self.kind == "too_slow_media"

    def __reduce__(self):
        return type(self), (self.what,), {"kind": self.kind, "where": self.where, "fix": self.fix}


@contextmanager
def located(where: str) -> Iterator[None]:
    """Name the place of every error that leaves the block and has none yet.

    Args:
        where: `file:row`, a file, or a setting.
    """
    try:
        yield
    except SmolVLMError as error:
        error.where = error.where or where
        raise
