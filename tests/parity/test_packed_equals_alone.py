"""The law: a pack's loss and gradients equal those of its conversations run one by one, without any
of our code.

Alone means: the stock processor makes ids and pixels of the conversation, the stock class gives the
loss of its labels, and the labels are found with the stock chat template: each assistant turn, from
the end of `Assistant:` to its `<end_of_utterance>`. On CPU, weights in float64, so that what is
seen is the law and not a processor's rounding (on one of them a float32 gradient was 1.008e-5 of
its norm away); pixels are rounded to float32 on both sides. The loss within 1e-6 of max(1, loss),
each parameter's gradient within 1e-5 of its norm. The biases of the tower's keys have no gradient
but rounding, as softmax cancels them; two gradients below `ZERO_GRADIENT` of the largest one's norm
count as equal.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from smolvlm.build.configs import published_config, tokens_per_tile
from smolvlm.build.processor import PictureSettings, write_processor
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.inspect.verify import gradient_errors
from smolvlm.model import loss
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.model.towers import Tower, parameters_of
from smolvlm.records import Conversation, ImageRef, Turn, VideoRef

Sample = tuple[Conversation, ...]


def picture(seed: int, size: tuple[int, int] = (70, 40)) -> ImageRef:
    """Noise over a colour; 70 x 40 px become 2 x 2 tiles and the global view."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 80, (size[1], size[0], 3)) + random.integers(0, 176, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue())


def user(*blocks: str | ImageRef | VideoRef) -> Turn:
    return Turn(role="user", blocks=blocks)


def assistant(text: str) -> Turn:
    return Turn(role="assistant", blocks=(text,))


def talk(*turns: Turn) -> Conversation:
    return Conversation(turns=turns, where="rows.jsonl:1", source="rows")


def ask(pictures: Sequence[ImageRef], question: str, answer: str) -> Conversation:
    return talk(user(*pictures, question), assistant(answer))


def tree(num_branches: int, num_pictures: int, seed: int = 0) -> Sample:
    """Questions about the same pictures: answers of several lengths, a further turn and picture in
    the last.

    One answer begins with a digit: the space after `Assistant:` is then a token of its own, and
    learned.
    """
    pictures = [picture(seed + number) for number in range(num_pictures)]
    answers = [
        "Blue.",
        "Blue and very green.",
        "No",
        "7, because it rained all day long.",
        "Two",
        "Seven (or 8).",
    ]
    branches = [ask(pictures, f"Question {n}{'?' * n}", answers[n]) for n in range(num_branches)]
    more = user("And then ", picture(99, (20, 20)), "?"), assistant("Then it stopped.")
    return (*branches[:-1], talk(*branches[-1].turns, *more))


def texts() -> list[Sample]:
    system = Turn(role="system", blocks=("Be brief.",))
    first = user("Name a colour, then a number."), assistant("Red, 7.")
    second = user("Why those?"), assistant("No reason:\n\nthey came to mind.")
    return [(talk(system, *first, *second),), (ask([], "Hi", "Hello there!"),)]


def twice() -> list[Sample]:
    """One picture twice in a conversation, and once more in another one, in a later turn."""
    same = picture(3)
    later = talk(
        user("Ready?"), assistant("Yes."), user("So: ", picture(3), "?"), assistant("A blur.")
    )
    return [(ask([same, same], "Any difference?", "None."),), (later,)]


SAMPLES: dict[str, list[Sample]] = {
    "one picture": [(ask([picture(0)], "What is it?", "A blur."),)],
    "several pictures": [
        (ask([picture(0), picture(1, (40, 70)), picture(2, (30, 30))], "Which?", "The third."),)
    ],
    "same picture twice": twice(),
}


def clip(seed: int, num_frames: int) -> VideoRef:
    """Noise that changes every second; shown at one frame a second, every frame is shown."""
    return VideoRef(frames=tuple(picture(seed + number, (40, 30)) for number in range(num_frames)))


def clips() -> list[Sample]:
    """A clip alone; two questions about one clip; a clip among pictures, and once more in a later
    turn."""
    about = clip(50, 3)
    tree_of_two = tuple(
        talk(user(about, question), assistant(answer))
        for question, answer in (("Who?", "Noise."), ("\nWhen?", "Now."))
    )
    mixed = talk(
        user(picture(1), "Is it in", clip(60, 2), "?"),
        assistant("No."),
        user(clip(70, 2), "Or here?"),
        assistant("There, 2 times."),
    )
    return [
        (talk(user(clip(40, 4), "What?"), assistant("Grey.")),),
        tree_of_two,
        (mixed,),
        *texts(),
    ]


MIXED: list[Sample] = [
    *texts(),
    tree(3, 2),
    (ask([picture(9)], "What?", "Noise."),),
    tree(2, 1, 5),
    *twice(),
]


@pytest.fixture
def bench(bench) -> Iterator[Any]:
    """The bench with its weights in float64."""
    with in_float64(bench):
        yield bench


@contextmanager
def in_float64(bench: Any) -> Iterator[None]:
    for model in (bench.ours, bench.stock):
        model.double()
    yield
    for model in (bench.ours, bench.stock):
        model.float().zero_grad()


@pytest.fixture(scope="session")
def mixed_alone(loaded_bench) -> Any:
    """What MIXED gives alone, everything trained."""
    with in_float64(loaded_bench):
        return loaded_bench.alone(MIXED)


def test_in_float32_packed_is_as_near_to_float64_as_alone(loaded_bench, mixed_alone) -> None:
    """Training runs in float32: packing must not round more than running alone does."""
    exact = mixed_alone.gradients
    packed = gradient_errors(loaded_bench.packed(MIXED).gradients, exact)
    alone = gradient_errors(loaded_bench.alone(MIXED).gradients, exact)
    assert all(packed[tower] <= 2 * alone[tower] for tower in packed), (packed, alone)
    assert max(alone.values()) < 1e-3


def test_text_alone(bench) -> None:
    bench.check(texts())
    assert all(value.grad is None for _, value in parameters_of(bench.ours, "vision_tower"))


@pytest.mark.parametrize("image_splitting", [True, False], ids=["split", "whole"])
@pytest.mark.parametrize("kind", SAMPLES)
def test_pictures(bench, kind: str, image_splitting: bool) -> None:
    chosen = replace(bench, image_splitting=image_splitting)
    chosen.check(SAMPLES[kind])
    assert all(value.grad is not None for value in bench.ours.parameters())


@pytest.mark.parametrize("image_splitting", [True, False], ids=["split", "whole"])
def test_clips(bench, image_splitting: bool) -> None:
    replace(bench, image_splitting=image_splitting).check(clips())


@pytest.mark.parametrize("average_frames", [2, 4])
def test_clips_whose_frames_are_averaged(bench, average_frames: int) -> None:
    """The stock class knows no averaging: alone means the mean, by hand, of its own features of
    every frame.

    Clips of 2, 3, 4 and 5 frames: whole groups, groups with frames left over, and one shorter than
    a group.
    """
    chosen = replace(bench, average_frames=average_frames)
    rows = [*clips(), (talk(user(clip(80, 5), "What?"), assistant("Five frames.")),)]
    pack, tokens = chosen.pack(rows), chosen.prompt.tokens
    assert len(pack.slot_tiles) == pack.slot_sizes.sum() > len(pack.slot_sizes)
    assert (pack.input_ids == tokens.image).sum() == tokens.tokens_per_tile * len(pack.slot_sizes)
    chosen.check(rows)


@pytest.mark.parametrize(("num_branches", "num_pictures"), [(2, 1), (3, 2), (4, 1), (5, 2), (6, 1)])
def test_trees(bench, num_branches: int, num_pictures: int) -> None:
    sample = tree(num_branches, num_pictures)
    assert len(bench.pack([sample]).slot_tiles) == 5 * (num_pictures + 1), (
        "the trunk's pictures stand once"
    )
    bench.check([sample])


def test_a_trunk_in_which_the_assistant_speaks(bench) -> None:
    """What is learned in the trunk is learned once for every branch, and from positions in the
    trunk."""
    greeting = Turn(role="system", blocks=("Be kind.",)), assistant("Hello! Show me something.")
    answers = [("What is it?", "A blur."), ("Is it red?", "No."), ("Why?", "Nobody knows why.")]
    sample = tuple(
        talk(*greeting, user(picture(4), question), assistant(answer))
        for question, answer in answers
    )
    pack = bench.pack([sample])
    assert len(pack.slot_tiles) == 5
    assert len(pack.predict_from) > len(pack.predict_from.unique())
    bench.check([sample])


def test_everything_in_one_pack(bench, mixed_alone) -> None:
    bench.check(MIXED, alone=mixed_alone)


def test_the_head_in_chunks(bench, mixed_alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_TARGETS", 3)
    bench.check(MIXED, alone=mixed_alone)


@pytest.mark.parametrize(
    "frozen", [("vision_tower",), ("vision_tower", "connector"), ("language_model",)]
)
def test_freezing_a_tower_changes_no_gradient_of_the_others(
    bench, mixed_alone, frozen: tuple[Tower, ...]
) -> None:
    rates: dict[Tower, float] = {"vision_tower": 1.0, "connector": 1.0, "language_model": 1.0}
    freeze(bench.ours, LearningRates(full=rates | dict.fromkeys(frozen, 0.0)))
    bench.check(MIXED, alone=mixed_alone)
    for tower in rates:
        assert all(
            (value.grad is None) == (tower in frozen)
            for _, value in parameters_of(bench.ours, tower)
        ), tower


@pytest.mark.parametrize("has_frozen_embeddings", [False, True])
def test_activation_checkpointing(bench, mixed_alone, has_frozen_embeddings: bool) -> None:
    """With frozen embeddings a pack of text gives the layers an input that needs no gradient."""
    bench.ours.get_input_embeddings().weight.requires_grad_(not has_frozen_embeddings)
    bench.ours.activation_checkpointing_enable()
    bench.ours.train()
    bench.check(MIXED, alone=mixed_alone)
    bench.check(texts())


@pytest.mark.parametrize("weighting", ["sample", "sqrt"])
def test_other_weights_of_the_loss(bench, weighting: str) -> None:
    replace(bench, weighting=weighting).check([*texts(), tree(3, 1)])


@pytest.mark.parametrize("weighting", ["token", "sample"])
def test_several_packs_a_step(bench, weighting: str) -> None:
    """Packs of unequal numbers of targets, one without a picture: the step's mean, not the mean of
    its packs."""
    replace(bench, weighting=weighting).check(texts(), [tree(2, 1)], twice())


@pytest.mark.slow
@pytest.mark.parametrize(("size", "language_width"), [("256M", None), ("2.2B", 64)])
def test_published_dimensions(
    make_bench, tmp_path: Path, size: Any, language_width: int | None
) -> None:
    """One layer a tower, one tile a picture; widths as published, but for the 2.2B's language
    model, 1 GB a copy."""
    config = published_config(size)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 1
    if language_width:
        config.text_config.update(
            {"hidden_size": language_width, "intermediate_size": 128, "head_dim": 2}
        )
    side_px = config.vision_config.image_size
    config.save_pretrained(tmp_path)
    write_processor(
        tmp_path,
        model_type="smolvlm",
        tile_side_px=side_px,
        tokens_per_tile=tokens_per_tile(config),
        pictures=PictureSettings(longest_edge_px=side_px),
    )
    torch.manual_seed(0)
    stock = transformers.SmolVLMForConditionalGeneration(config)
    ours = MODEL_CLASSES["smolvlm"].from_pretrained(
        None, config=config, state_dict=stock.state_dict()
    )
    questions = ask([picture(0)], "What is it?", "A blur."), ask([picture(0)], "Is it red?", "No.")
    make_bench(ours, stock, tmp_path).check([questions, (ask([], "Hi", "Hello!"),)])
