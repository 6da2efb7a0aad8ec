"""What a chat template comes apart into: its words, its special tokens, the places of blocks."""

from dataclasses import dataclass
from typing import Literal

from smolvlm.records import Role

BlockKind = Literal["text", "image"]
"""A clip counts as text: its frames are pictures within words of ours."""
Shape = tuple[tuple[Role, tuple[BlockKind, ...]], ...]
"""Of each turn the role and the kinds of its blocks."""


@dataclass(frozen=True, slots=True)
class Words:
    """Words of the template."""

    text: str
    learned_in: int | None = None
    """Number of the assistant's turn that they are learned with; None is never."""


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A token of the template, by name."""

    token: str
    learned_in: int | None = None
    ends: int | None = None
    """Number of the turn that it ends; None is no turn's end."""


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where a block of the conversation goes."""

    turn: int
    block: int
    """Counted over all turns."""
    is_learned: bool = False
    strips_left: bool = False
    """Whether the template takes white space off the block's beginning."""
    strips_right: bool = False

    def trimmed(self, text: str) -> str:
        """Return a text as the template writes it here."""
        text = text.lstrip() if self.strips_left else text
        return text.rstrip() if self.strips_right else text


TemplateItem = Words | SpecialToken | BlockPlace
Place = tuple[int, int, BlockPlace]
"""(begin, end) in what the template wrote, and what goes there."""
