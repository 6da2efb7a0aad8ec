"""How far two sets of gradients are from each other; the whole check is tried through `smolvlm
inspect --verify`."""

import math

import torch
from torch import Tensor

from smolvlm.inspect.verify import GRADIENT_TOLERANCE, LOSS_TOLERANCE, Verification, gradient_errors
from smolvlm.model.towers import TOWERS

NAMES = {
    "vision_tower": "model.vision_model.embeddings.weight",
    "connector": "model.connector.proj.weight",
    "language_model": "lm_head.weight",
}


def gradients(**scales: float | None) -> dict[str, Tensor | None]:
    """Return a gradient a tower: ones times a scale, or None."""
    given = {NAMES[tower]: scales.get(tower, 1.0) for tower in TOWERS}
    return {
        name: None if scale is None else torch.full((8,), scale) for name, scale in given.items()
    }


def test_equal_gradients_have_no_error() -> None:
    assert gradient_errors(gradients(), gradients()) == dict.fromkeys(TOWERS, 0.0)


def test_the_error_is_relative_and_by_tower() -> None:
    errors = gradient_errors(
        gradients(connector=1.01, language_model=2.0), gradients(language_model=4.0)
    )
    assert errors["vision_tower"] == 0.0
    assert math.isclose(errors["connector"], 0.01, rel_tol=1e-4)
    assert errors["language_model"] == 0.5


def test_a_missing_gradient_is_infinitely_wrong_and_rounding_alone_is_not() -> None:
    assert gradient_errors(gradients(connector=None), gradients())["connector"] == math.inf
    assert gradient_errors(gradients(), gradients(connector=None))["connector"] == math.inf
    assert gradient_errors(gradients(connector=None), gradients(connector=1e-9))["connector"] == 0.0
    assert (
        gradient_errors(gradients(connector=-1e-9), gradients(connector=1e-9))["connector"] == 0.0
    )


def test_what_holds() -> None:
    def found(*, ids_differ: tuple[str, ...] = (), loss: float = 3.0, error: float = 0.0) -> bool:
        return Verification(
            num_conversations=1,
            row_words="conversations",
            num_tokens_packed=9,
            num_tokens_alone=9,
            ids_differ=ids_differ,
            loss_packed=loss,
            loss_alone=3.0,
            gradient_error={"language_model": 0.0, "connector": error},
        ).holds

    assert found()
    assert found(loss=3.0 * (1 + 0.5 * LOSS_TOLERANCE), error=0.5 * GRADIENT_TOLERANCE)
    assert not found(loss=3.0 * (1 + 2 * LOSS_TOLERANCE))
    assert not found(error=2 * GRADIENT_TOLERANCE)
    assert not found(ids_differ=("rows.jsonl:1",))
