"""The command line, called in this process."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from smolvlm.cli.main import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a command left behind."""

    status: int
    output: str
    messages: str
    """Standard error."""

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]


def call_smolvlm(*arguments: object) -> Outcome:
    """Call `smolvlm` with these arguments."""
    output, messages = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["smolvlm", *map(str, arguments)])
        redirected = contextlib.redirect_stdout(output), contextlib.redirect_stderr(messages)
        with redirected[0], redirected[1], pytest.raises(SystemExit) as end:
            main()
    status = end.value.code
    assert isinstance(status, int | None)
    return Outcome(status=status or 0, output=output.getvalue(), messages=messages.getvalue())
