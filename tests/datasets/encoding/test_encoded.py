"""What conversations laid beside each other teach, told without the code that lays them; which
media are the same."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from smolvlm.datasets.encoding.encoded import media_identity
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.records import Conversation, Example, Grid, ImageRef, Sample, Turn, VideoRef

WHOLE = Grid(rows=0, columns=0)


def asks(number: int, *blocks: str | ImageRef, answer: str) -> Conversation:
    turns = (Turn(role="user", blocks=blocks), Turn(role="assistant", blocks=(answer,)))
    return Conversation(turns=turns, where=f"rows:{number}", source="s")


def assert_learned(prompt: PromptSettings, example: Example, number: int, text: str) -> None:
    """A conversation's targets say `text` and end the turn, the colon predicts the first and each
    the next."""
    own = example.target_conversation == number
    targets, places = example.target_ids[own].tolist(), example.predict_from[own]
    assert prompt.text.decode(targets[:-1]) == f" {text}"
    assert targets[-1] == prompt.tokens.end_of_turn
    assert prompt.text.decode([int(example.input_ids[places[0]])]) == ":"
    assert example.input_ids[places[1:]].tolist() == targets[:-1]
    assert example.position_ids[places].tolist() == list(
        range(example.position_ids[places[0]], example.position_ids[places[0]] + len(targets))
    )


@pytest.mark.parametrize("text", ["yes", "It is a small cat"])
def test_each_target_is_predicted_from_the_token_before_it(
    prompt: PromptSettings, text: str
) -> None:
    alone = prompt.encoder().encode(
        Sample(conversations=(asks(1, "What?", answer=text),)), layouts=[[]]
    )
    assert_learned(prompt, alone, 0, text)


def test_in_a_tree_too_and_the_first_target_of_a_branch_that_is_all_answer(
    prompt: PromptSettings,
) -> None:
    picture = ImageRef(data=b"picture")
    answers = "yes", "a longer one", "no"
    rows = tuple(
        asks(number, picture, "is it?", answer=text) for number, text in enumerate(answers)
    )
    tree = prompt.encoder().encode(Sample(conversations=rows), layouts=[[WHOLE]] * 3)
    for number, text in enumerate(answers):
        assert_learned(prompt, tree, number, text)
    turns = [
        (Turn(role="user", blocks=("is it?",)), Turn(role="assistant", blocks=(text,)))
        for text in ("yes", "no")
    ]
    pair = Conversation(turns=turns[0], rejected=turns[1], where="rows:1", source="s")
    example = prompt.encoder().encode(Sample(conversations=(pair,)), layouts=[[]])
    for number, text in enumerate(("yes", "no")):
        assert_learned(prompt, example, number, text)
        first = example.predict_from[example.target_conversation == number][0]
        assert first == example.conversation_starts[0] - 1, (
            "both answers begin where the prompt ends"
        )


def test_media_are_the_same_by_path_and_place_in_it_or_by_bytes(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    refs = [
        ImageRef(path=path),
        ImageRef(path=path, span=(512, 100)),
        ImageRef(path=path, span=(1536, 100)),
        ImageRef(path=path, span=(512, 200)),
        ImageRef(path=tmp_path / "other.tar", span=(512, 100)),
        ImageRef(data=b"one"),
        ImageRef(data=b"two"),
        VideoRef(path=path, span=(512, 100)),
        VideoRef(path=path, span=(1536, 100)),
        VideoRef(path=path, span=(512, 100), start_s=1.0),
        VideoRef(path=path, span=(512, 100), source_fps=2.0),
        VideoRef(frames=(ImageRef(data=b"one"), ImageRef(data=b"two"))),
        VideoRef(frames=(ImageRef(data=b"two"), ImageRef(data=b"one"))),
    ]
    assert len({media_identity(ref) for ref in refs}) == len(refs)
    assert media_identity(ImageRef(path=path, span=(512, 100))) == media_identity(refs[1])
    assert media_identity(ImageRef(data=b"one")) == media_identity(refs[5])


def test_names_that_are_no_utf8_are_names() -> None:
    named = [ImageRef(path=Path(name)) for name in ("caf\udce9.png", "\ud800", "\udfff\0", "café")]
    assert len({media_identity(ref) for ref in named}) == len(named)


def test_pictures_of_one_shard_are_no_tree(
    prompt: PromptSettings, photos: dict[str, Path], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for name in ("camera", "horse"):
            data = photos[name].read_bytes()
            info = tarfile.TarInfo(f"{name}.png")
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
        spans = [(member.offset_data, member.size) for member in shard.getmembers()]
    first, second = (ImageRef(path=tmp_path / "shard.tar", span=span) for span in spans)
    encoder = prompt.encoder()
    rows = [
        asks(1, first, "a?", answer="x"),
        asks(2, first, "b?", answer="y"),
        asks(3, second, "c?", answer="z"),
    ]
    keys = [encoder.lengths(row, layouts=[WHOLE]).prefix_key for row in rows]
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(ValueError, match="must begin with the same pictures"):
        encoder.encode(Sample(conversations=(rows[0], rows[2])), layouts=[[WHOLE]] * 2)
    both = encoder.encode(
        Sample(conversations=(asks(4, first, second, "d?", answer="w"),)), layouts=[[WHOLE, WHOLE]]
    )
    assert [both.media[tile.medium] for tile in both.tiles] == [first, second]
    assert np.flatnonzero(both.learned).tolist() == (both.predict_from + 1).tolist()
