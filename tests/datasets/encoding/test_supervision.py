"""What is learned of a conversation: whose words, and how much of each turn."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.chat import TokenRole
from smolvlm.datasets.encoding.encode import Encoder
from smolvlm.datasets.encoding.encoded import LossWeighting
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.records import Conversation, Frames, Grid, ImageRef, Sample, Turn, VideoRef

PICTURE, CLIP = ImageRef(data=b"a"), VideoRef(data=b"b")
FRAMES = Frames(numbers=(0, 1), times_s=(0.0, 1.0), duration_s=2.0)


@pytest.fixture(scope="session")
def prompt_text(prompt: PromptSettings) -> PromptSettings:
    """The tiny SmolVLM's, where the user's words are learned too."""
    return replace(prompt, supervise="text")


def row(*turns: Turn) -> Conversation:
    return Conversation(turns=turns, where="r:1", source="s")


def talk(*weights: float) -> Conversation:
    """Questions and answers by turns, each answer weighed."""
    turns: list[Turn] = []
    for number, weight in enumerate(weights):
        turns.append(Turn(role="user", blocks=(f"question {number}",)))
        turns.append(Turn(role="assistant", blocks=(f"answer {number}",), weight=weight))
    return row(*turns)


def encoder_of(prompt: PromptSettings, weighting: LossWeighting = "token") -> Encoder:
    return prompt.encoder(loss_weighting=weighting)


@settings(deadline=None)
@given(weights=st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=1, max_size=4))
def test_a_turns_weight_multiplies_its_targets_and_0_has_none(
    prompt: PromptSettings, weights: list[float]
) -> None:
    if not any(weights):
        return
    plain, weighed = talk(*[1.0] * len(weights)), talk(*weights)
    encoder = encoder_of(prompt)
    all_learned = encoder.encode(Sample(conversations=(plain,)), layouts=[[]])
    example = encoder.encode(Sample(conversations=(weighed,)), layouts=[[]])
    assert np.array_equal(example.input_ids, all_learned.input_ids)
    of_turn = np.cumsum(np.diff(all_learned.predict_from, prepend=-1) > 1) - 1
    expected = np.array(weights, np.float32)[of_turn]
    assert example.target_weights.tolist() == expected[expected > 0].tolist()
    assert example.predict_from.tolist() == all_learned.predict_from[expected > 0].tolist()
    lengths = encoder.lengths(weighed, layouts=[])
    assert lengths.num_supervised_tokens == len(example.target_ids)


@pytest.mark.parametrize("weighting", ["sample", "sqrt"])
def test_weights_multiply_what_the_loss_weighting_says(
    prompt: PromptSettings, weighting: LossWeighting
) -> None:
    turns = (Turn(role="user", blocks=("q",)), Turn(role="assistant", blocks=("a",), weight=0.5))
    encoder = encoder_of(prompt, weighting)
    example = encoder.encode(Sample(conversations=(row(*turns),)), layouts=[[]])
    number = len(example.target_ids)
    whole = {"sample": 1 / number, "sqrt": number**-0.5}[weighting]
    assert np.allclose(example.target_weights, 0.5 * whole)


def test_the_users_words_and_their_end_are_learned_and_nothing_else(
    prompt: PromptSettings, prompt_text: PromptSettings
) -> None:
    turns = (
        Turn(role="system", blocks=("Be brief.",)),
        Turn(role="user", blocks=("Look: ", PICTURE, " and ", CLIP, "What is it?")),
        Turn(role="assistant", blocks=("A cat.",)),
        Turn(role="user", blocks=("Not said.",), weight=0.0),
        Turn(role="assistant", blocks=("No.",)),
    )
    layouts = [Grid(rows=2, columns=1), FRAMES]
    alone = encoder_of(prompt).encode_turns(turns, layouts=layouts)
    both = encoder_of(prompt_text).encode_turns(turns, layouts=layouts)
    assert np.array_equal(alone.input_ids, both.input_ids)
    assert (both.learned >= alone.learned).all()
    users = both.learned & ~alone.learned
    assert set(both.roles[users].tolist()) == {TokenRole.USER}
    pieces = prompt_text.text.pieces(both.input_ids[users].tolist())
    # The space behind "and" is one token with the words about the clip, which are not the user's.
    assert "".join(pieces).replace("Ġ", " ") == " Look:  andWhat is it?<end_of_utterance>"
    never = np.isin(both.roles, [TokenRole.TEMPLATE, TokenRole.IMAGE, TokenRole.SYSTEM])
    assert not both.learned[never].any()
    assert prompt.identity != prompt_text.identity


def test_in_trees_each_branch_learns_its_own_users_words(
    prompt_text: PromptSettings,
) -> None:
    rows = [
        row(
            Turn(role="user", blocks=(PICTURE, f"Question {number}?")),
            Turn(role="assistant", blocks=(f"Answer {number}.",)),
        )
        for number in range(3)
    ]
    encoder, layouts = encoder_of(prompt_text), [[Grid(rows=0, columns=0)]] * 3
    tree = encoder.encode(Sample(conversations=tuple(rows)), layouts=layouts)
    for number, conversation in enumerate(rows):
        alone = encoder.encode(Sample(conversations=(conversation,)), layouts=layouts[:1])
        owns = tree.target_conversation == number
        assert tree.target_ids[owns].tolist() == alone.target_ids.tolist()
        assert tree.target_weights[owns].tolist() == alone.target_weights.tolist()
