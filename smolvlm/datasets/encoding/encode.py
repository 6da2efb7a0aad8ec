"""Conversations to arrays: ids, positions, scopes and targets.

In: a `Conversation` and what of its media is shown (from headers); or a `Sample`. Out: an
`EncodedConversation`, an `Example`. Blocks of image tokens are spliced in by id rather than written
out as text and encoded, with equal ids.

A sample of several conversations becomes a tree: their common beginning, up to the first user
turn's last picture or frame, stands once (the trunk) and what follows in each stands beside it (a
branch). Positions in a branch go on from the trunk's end. A target is a triple (predict_from,
target_id, weight), so a trunk token may predict for many branches.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from smolvlm.datasets.encoding.chat import (
    ImageSegment,
    Segment,
    Supervise,
    Supervision,
    TextSegment,
    TokenRole,
    TokenSegment,
    render,
)
from smolvlm.datasets.encoding.encoded import (
    EncodedConversation,
    LossWeighting,
    assemble,
    common_beginning,
    media_identity,
    prefix_media,
)
from smolvlm.datasets.encoding.split_template import ChatTemplate
from smolvlm.datasets.encoding.tokens import PromptTokens, TextEncoder
from smolvlm.datasets.encoding.video_words import PromptWording
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, Example, Grid, Layout, Lengths, Sample, Turn


class Encoder:
    """Turns conversations into arrays with one checkpoint's tokens.

    Stateless but for a cache of short texts.
    """

    def __init__(
        self,
        *,
        tokens: PromptTokens,
        text: TextEncoder,
        template: ChatTemplate,
        wording: PromptWording = "released",
        supervise: Supervise = "assistant",
        loss_weighting: LossWeighting = "token",
    ) -> None:
        self.tokens = tokens
        self._text = text
        self._template = template
        self._wording: PromptWording = wording
        self._supervise: Supervise = supervise
        self.loss_weighting: LossWeighting = loss_weighting

    @property
    def tokens_kept_as_text(self) -> frozenset[str]:
        """Special tokens that stay text where a conversation's own words name them."""
        return self._text.prompt_tokens

    def encode_turns(
        self,
        turns: Sequence[Turn],
        *,
        layouts: Sequence[Layout],
        learned_from: int = 0,
        add_generation_prompt: bool = False,
    ) -> EncodedConversation:
        """Encode one conversation.

        Args:
            turns: its messages.
            layouts: what is shown of each of its pictures and clips, in prompt order.
            learned_from: number of the turn before which nothing is learned.
            add_generation_prompt: end with what the model goes on from (for generation).
        """
        ids: list[int] = []
        roles: list[int] = []
        weights: list[float] = []
        prefix_tokens = prefix_media = 0
        for segment in render(
            turns,
            layouts,
            template=self._template,
            wording=self._wording,
            supervision=Supervision(self._supervise, learned_from),
            add_generation_prompt=add_generation_prompt,
        ):
            new_ids, new_roles, new_weights = self._segment(segment)
            ids += new_ids
            roles += new_roles
            weights += new_weights
            if isinstance(segment, ImageSegment) and segment.is_prefix:
                prefix_tokens, prefix_media = len(ids), segment.medium + 1
        return EncodedConversation(
            input_ids=np.array(ids, np.int32),
            roles=np.array(roles, np.uint8),
            weights=np.array(weights, np.float32),
            media=tuple(
                block for turn in turns for block in turn.blocks if not isinstance(block, str)
            ),
            layouts=tuple(layouts),
            prefix_tokens=prefix_tokens,
            prefix_media=prefix_media,
        )

    def parts(
        self, conversation: Conversation, *, layouts: Sequence[Layout]
    ) -> tuple[EncodedConversation, ...]:
        """Encode a row's branches; several learn what follows the turns that they share."""
        shared = conversation.num_shared_turns
        return tuple(
            self.encode_turns(turns, layouts=layouts, learned_from=shared)
            for turns in conversation.branches
        )

    def _segment(self, segment: Segment) -> tuple[list[int], list[int], list[float]]:
        """Return a segment's ids, and of each its role and its weight; 0 is not learned."""
        match segment:
            case TokenSegment(token, role, is_learned, weight):
                return [self.tokens.special[token]], [role], [weight if is_learned else 0.0]
            case ImageSegment(grid):
                ids = image_block(self.tokens, grid)
                return ids, [TokenRole.IMAGE] * len(ids), [0.0] * len(ids)
            case TextSegment(pieces):
                ids, offsets = self._text("".join(piece.text for piece in pieces))
                owner: list[int] = []
                for number, piece in enumerate(pieces):
                    owner += [number] * len(piece.text)
                # A token belongs to the speaker of its last character: " The" after "Assistant:" is
                # the assistant's.
                owners = [pieces[owner[max(end - 1, 0)]] for _, end in offsets]
                return (
                    list(ids),
                    [piece.role for piece in owners],
                    [piece.weight if piece.is_learned else 0.0 for piece in owners],
                )

    def lengths(self, conversation: Conversation, *, layouts: Sequence[Layout]) -> Lengths:
        """Return a conversation's exact sizes; `layouts` come from headers, no pixel is decoded."""
        encoded, *worse = self.parts(conversation, layouts=layouts)
        if worse:
            trunk = common_beginning((encoded, *worse))
            branches = [len(part.input_ids) - trunk for part in (encoded, *worse)]
            return Lengths(
                num_tokens=trunk + sum(branches),
                num_positions=trunk + max(branches),
                num_tiles=sum(layout.num_tiles for layout in layouts),
                num_supervised_tokens=int(encoded.learned.sum())
                + sum(int(part.learned.sum()) for part in worse),
                prefix_tokens=0,
                prefix_key=b"",
                prefix_tiles=0,
            )
        key = b""
        if encoded.prefix_tokens:
            digest = blake2b(encoded.input_ids[: encoded.prefix_tokens].tobytes(), digest_size=16)
            for medium in encoded.media[: encoded.prefix_media]:
                digest.update(blake2b(media_identity(medium), digest_size=16).digest())
            key = digest.digest()
        return Lengths(
            num_tokens=len(encoded.input_ids),
            num_positions=len(encoded.input_ids),
            num_tiles=sum(layout.num_tiles for layout in layouts),
            num_supervised_tokens=int(encoded.learned.sum()),
            prefix_tokens=encoded.prefix_tokens,
            prefix_key=key,
            prefix_tiles=sum(
                layout.num_tiles for layout in encoded.layouts[: encoded.prefix_media]
            ),
        )

    def encode(self, sample: Sample, *, layouts: Sequence[Sequence[Layout]]) -> Example:
        """Encode a sample; several conversations become a tree over their common prefix.

        Args:
            sample: one conversation, or several with equal prefix keys.
            layouts: for each conversation, what is shown of each of its pictures and clips.

        Raises:
            SampleError: a conversation supervises no token.
            ValueError: the conversations do not share their prefix.
        """
        parts, owners = [], []
        for conversation, shown in zip(sample.conversations, layouts, strict=True):
            parts += self.parts(conversation, layouts=shown)
            owners += [conversation] * (len(parts) - len(owners))
        for conversation, part in zip(owners, parts, strict=True):
            if not part.learned.any():
                raise SampleError(
                    "nothing in this row is learned: no assistant turn with text",
                    kind="empty_row",
                    where=conversation.where,
                    fix="give the row an answer",
                )
        if any(len(conversation.branches) > 1 for conversation in owners):
            if len(sample.conversations) > 1:
                raise ValueError("a row of several branches is a tree of its own")
            trunk, num_shared_media = common_beginning(parts), len(parts[0].media)
        else:
            trunk, num_shared_media = (
                (parts[0].prefix_tokens, parts[0].prefix_media) if len(parts) > 1 else (0, 0)
            )
        for part in parts[1:]:
            if not np.array_equal(part.input_ids[:trunk], parts[0].input_ids[:trunk]):
                raise ValueError("the conversations of a tree must begin with the same tokens")
            if prefix_media(part) != prefix_media(parts[0]):
                raise ValueError(
                    "the conversations of a tree must begin with the same pictures and clips"
                )
        return assemble(
            owners,
            parts,
            trunk=trunk,
            num_shared_media=num_shared_media,
            loss_weighting=self.loss_weighting,
        )


def image_block(tokens: PromptTokens, grid: Grid) -> list[int]:
    """Return the ids that stand for one picture: tags, image tokens and newlines (FORMATS: one
    tile, R x C tiles)."""
    places = [tokens.image] * tokens.tokens_per_tile
    ids: list[int] = []
    for row in range(1, grid.rows + 1):
        for column in range(1, grid.columns + 1):
            ids += [tokens.image_boundary, *tokens.row_column[row, column], *places]
        ids += tokens.row_end if row < grid.rows else tokens.last_row_end
    return [*ids, tokens.image_boundary, *tokens.global_view, *places, tokens.image_boundary]
