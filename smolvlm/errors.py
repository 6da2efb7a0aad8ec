"""Errors that users see: what went wrong, where, and how to fix it.

`ConfigError` speaks of a setting, `SampleError` of a row or a file. Everything else (`ValueError`, `AssertionError`)
is a bug of ours. Both classes survive pickling and the re-raise of a data-loader worker, which rebuilds an
exception from its message alone.
"""


class SmolVLMError(Exception):
    """An error whose text is meant for the user; the command line prints it without a traceback, exit status 1."""

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        parts = [f"{where}: {what}" if where else what]
        if fix:
            parts.append(f"  fix: {fix}")
        super().__init__("\n".join(parts))

    def __reduce__(self):
        return _rebuild, (type(self), self.what, self.where, self.fix)


class ConfigError(SmolVLMError):
    """A setting, or a combination of settings, that cannot work. `where` is `file: section.key`."""


class SampleError(SmolVLMError):
    """A row, picture or clip that cannot be trained on. `where` is `file:row`, rows counted from 1 in the file."""


def _rebuild(kind: type[SmolVLMError], what: str, where: str | None, fix: str | None) -> SmolVLMError:
    return kind(what, where=where, fix=fix)
