"""The tags of cut pictures as tokens of their own, for the first 2.2B checkpoint, whose vocabulary
lacks them.

In: a checkpoint. Out: the same with `<global-img>` and `<row_1_col_1>` to `<row_6_col_6>` in its
vocabulary, and a report. In the first release every tag falls apart into pieces of text: 9 for that
of a tile, 5 for the global view's. A tag begins at the mean of its pieces' rows. `<row_1_col_2>`
and `<row_2_col_1>` are made of the same pieces, so their means are equal; `new_tokens.first_rows`
tells the later one apart by a little noise. Nobody has trained these rows: the report
says how.
"""

from dataclasses import dataclass
from pathlib import Path

from smolvlm.build.grow_vocabulary import grow_checkpoint
from smolvlm.checkpoints.vocabulary import Wanted
from smolvlm.errors import ConfigError
from smolvlm.media.tile_grid import MAX_TILES_PER_SIDE

_SIDES = range(1, MAX_TILES_PER_SIDE + 1)
TAGS = ("<global-img>", *(f"<row_{row}_col_{column}>" for row in _SIDES for column in _SIDES))
"""In the order of the later checkpoints' ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpgradeReport:
    """What an upgrade did, and what is left to do."""

    folder: Path
    num_tags: int
    """How many the vocabulary lacked."""
    pieces_before: tuple[int, int]
    """Least and most pieces that one of them fell into."""
    vocabulary_before: int
    vocabulary_after: int
    """Rows of each of the two matrices."""
    num_new_parameters: int

    def __str__(self) -> str:
        least, most = self.pieces_before
        return (
            f"{self.folder}: {self.num_tags} tags, {least} to {most} pieces of text each before, "
            "are one id each now; "
            f"vocabulary {self.vocabulary_before:,} -> {self.vocabulary_after:,}\n"
            f"their rows in embeddings and output head ({self.num_new_parameters:,} numbers) are "
            "means of their "
            "pieces: nobody has trained them. Train them before use, on cut pictures:\n"
            '  train: {trainable_tokens: ["<global-img>", "<row_*>"]}   with a language adapter, '
            "or with language "
            "frozen\n"
            "or train the language model in full, which trains every row."
        )


def upgrade_tags(base: str, out: Path) -> UpgradeReport:
    """Write a checkpoint whose vocabulary has the tags of cut pictures.

    Args:
        base: hub id or folder of a checkpoint that lacks some.
        out: folder to write; new or empty.

    Raises:
        ConfigError: no checkpoint, all tags there already, or something in the way.
    """
    grown = grow_checkpoint(
        base, out, [Wanted(token=tag, words=tag, is_special=True) for tag in TAGS]
    )
    numbers = [len(placed.pieces) for placed in grown.placement.placed]
    return UpgradeReport(
        folder=out,
        num_tags=len(numbers),
        pieces_before=(min(numbers), max(numbers)),
        vocabulary_before=grown.rows_before,
        vocabulary_after=grown.rows_after,
        num_new_parameters=grown.num_new_parameters,
    )


def add_tokens(base: str, out: Path, tokens: list[str]) -> str:
    """Write a checkpoint with new tokens, for adapters to be trained on; return what was done.

    Raises:
        ConfigError: as `upgrade_tags`, or a text that cannot become a token.
    """
    for token in tokens:
        if not token.strip() or token != token.strip() or tokens.count(token) > 1:
            fix = "give each once, without white space around it"
            raise ConfigError(f"{token!r} is no new token", where="tokens", fix=fix)
    grown = grow_checkpoint(base, out, [Wanted(token=token, words=token) for token in tokens])
    ids = ", ".join(f"{placed.token} {placed.token_id}" for placed in grown.placement.placed)
    return (
        f"{out}: {ids}; vocabulary {grown.rows_before:,} -> {grown.rows_after:,}\n"
        "list them as `model.new_tokens` of a run file that begins here, and their rows train"
    )
