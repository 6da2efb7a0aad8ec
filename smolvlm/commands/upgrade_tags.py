"""`smolvlm upgrade-tags` and `smolvlm add-tokens`: checkpoints with more tokens than they came with."""

import sys
from collections.abc import Sequence
from pathlib import Path

from smolvlm.model.parts.upgrade_tags import add_tokens, upgrade_tags


def run_upgrade(base: str, *, out: Path) -> None:
    """Write a checkpoint with the tags of cut pictures, and say what must be trained."""
    print(upgrade_tags(base, out), file=sys.stderr)


def run_addition(base: str, tokens: Sequence[str], *, out: Path) -> None:
    """Write a checkpoint with new tokens."""
    print(add_tokens(base, out, list(tokens)), file=sys.stderr)
