"""What runs on a forge is pinned to commits, with their versions beside them."""

import re
from pathlib import Path

WORKFLOWS = sorted((Path(__file__).parents[1] / ".github" / "workflows").glob("*.y*ml"))
_PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40}  # v\d+(\.\d+)*$")


def test_every_action_is_a_commit() -> None:
    lines = [
        line.strip().removeprefix("- ")
        for workflow in WORKFLOWS
        for line in workflow.read_text().splitlines()
        if "uses:" in line
    ]
    assert lines
    assert [line for line in lines if not _PINNED.match(line)] == []
