"""Preference rows: a prompt with a better and a worse answer, in; two conversations, out."""

from collections.abc import Sequence

from smolvlm.datasets.rows.fields import Fields, Reading
from smolvlm.datasets.rows.placeholders import DraftTurn
from smolvlm.datasets.rows.texts import answer_text, as_text, kind_of
from smolvlm.datasets.rows.turns import plain_turn, read_turns
from smolvlm.errors import SampleError
from smolvlm.records import Role, Turn


def read_preference(
    fields: Fields, has_media: bool, reading: Reading
) -> tuple[list[DraftTurn], list[DraftTurn]]:
    """Read `prompt`, `chosen`, `rejected`: each text, or a list of messages.

    Without `prompt` the other two hold all of it.
    """

    def turns(key: str, role: Role) -> list[DraftTurn]:
        value = fields.take(key)
        if isinstance(value, list):
            return read_turns(value, key, has_media=has_media, reading=reading)
        text = (as_text if role == "user" else answer_text)(value, f"`{key}`")
        has_places = role == "user" and has_media
        return [plain_turn(role, text, has_places=has_places, spec=reading.spec)]

    if not fields.has("prompt"):
        for key in ("chosen", "rejected"):
            value = fields.peek(key)
            if not isinstance(value, list):
                fix = "add the prompt, or name its column in the mixture: columns: {prompt: NAME}"
                raise SampleError(f"`{key}` is {kind_of(value)}, and there is no `prompt`", fix=fix)
        return turns("chosen", "assistant"), turns("rejected", "assistant")
    prompt = turns("prompt", "user")
    chosen, rejected = turns("chosen", "assistant"), turns("rejected", "assistant")
    if len(prompt) == 1 and _begins_with(chosen, prompt[0]) and _begins_with(rejected, prompt[0]):
        return chosen, rejected  # both say the prompt again
    return [*prompt, *chosen], [*prompt, *rejected]


def _begins_with(turns: Sequence[DraftTurn], prompt: DraftTurn) -> bool:
    return turns[0].role == "user" and turns[0].blocks == prompt.blocks


def check_preference(chosen: Sequence[Turn], rejected: Sequence[Turn]) -> None:
    """Check that the two differ, first in what the assistant says, and that no turn is weighed."""
    if any(turn.weight != 1 for turn in (*chosen, *rejected) if turn.role == "assistant"):
        what = "a turn of a preference row has a weight, which no preference loss knows"
        raise SampleError(what, kind="unread_key", fix="take it out")
    if chosen == rejected:
        raise SampleError(
            "`chosen` and `rejected` are the same", fix="take the row out: nothing is preferred"
        )
    pairs = zip(chosen, rejected, strict=False)
    first = next((number for number, (one, other) in enumerate(pairs) if one != other), None)
    if first is None or chosen[first].role != "assistant" or rejected[first].role != "assistant":
        raise SampleError(
            "`chosen` and `rejected` do not answer the same prompt", fix="make them begin alike"
        )
    if any(
        not isinstance(block, str)
        for turn in (*chosen[first:], *rejected[first:])
        for block in turn.blocks
    ):
        what = "a picture or clip after the place where `chosen` and `rejected` part"
        raise SampleError(
            what, fix="put it into the prompt, or end both with the first answers that differ"
        )
