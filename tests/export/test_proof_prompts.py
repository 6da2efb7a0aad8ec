"""The prompts of a proof: the same everywhere, of three shapes, with a run's new tokens in one."""

from io import BytesIO

from PIL import Image

from smolvlm.export.proof_prompts import proof_prompts
from smolvlm.records import ImageRef


def test_pictures_are_wide_tall_and_square_and_the_same_each_time() -> None:
    prompts = proof_prompts()
    sizes = [Image.open(BytesIO(prompt.png)).size for prompt in prompts]
    assert sizes == [(323, 190), (151, 287), (240, 240)]
    assert prompts == proof_prompts()
    assert len({prompt.png for prompt in prompts}) == 3


def test_one_question_stands_before_its_picture() -> None:
    kinds = [
        [isinstance(block, ImageRef) for block in prompt.turn.blocks] for prompt in proof_prompts()
    ]
    assert kinds == [[True, False], [True, False], [False, True]]


def test_new_tokens_are_asked_about() -> None:
    prompts = proof_prompts(["<zone>", "<lot>"])
    assert "<zone> <lot>" in prompts[-1].question
    assert prompts[:2] == proof_prompts()[:2]
