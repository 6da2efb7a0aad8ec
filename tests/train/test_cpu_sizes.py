"""Sizes of attention: the fastest of each is taken, where its way is, and results do not depend on
it but for rounding."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from smolvlm.model.cpu_choices import CpuChoices, default_choices, using_choices
from smolvlm.train import cpu_sizes
from smolvlm.train.cpu_sizes import SIZES, best_sizes

ALL = CpuChoices(bf16_products=True, onednn_products=True)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[CpuChoices], float]], list[str]]:
    """Pretends that work takes seconds by the choices it is done with; returns what was timed."""

    def pretend(seconds: Callable[[CpuChoices], float]) -> list[str]:
        asked: list[str] = []

        def best(works: Sequence[Any], **_: int) -> list[float]:
            found: list[float] = []
            for work in works:
                work(found)
            return found

        def computing(choices: CpuChoices, work: Any) -> Any:
            assert callable(work)
            return lambda found: found.append(seconds(choices))

        def noted(name: str, make: Any) -> Any:
            def work(choices: CpuChoices) -> Any:
                asked.append(name)
                return make(choices)

            return work

        for name, size in SIZES.items():
            monkeypatch.setitem(SIZES, name, replace(size, work=noted(name, size.work)))
        monkeypatch.setattr(cpu_sizes, "best_seconds", best)
        monkeypatch.setattr(cpu_sizes, "_computing", computing)
        return asked

    return pretend


def test_the_fastest_size_is_taken_and_a_small_gain_is_none(timed: Any) -> None:
    def sizes(choices: CpuChoices) -> int:
        return choices.bf16_scores * choices.float32_scores * choices.float32_rows

    timed(lambda choices: sizes(choices) * choices.float32_dense_tokens)
    assert best_sizes(ALL) == replace(
        ALL, bf16_scores=2**19, float32_scores=2**17, float32_dense_tokens=64
    )
    timed(lambda choices: 1 / sizes(choices))
    assert best_sizes(ALL) == replace(
        ALL, bf16_scores=2**21, float32_scores=2**19, float32_rows=576
    )
    timed(lambda choices: 1.0 if choices == ALL else 0.96)
    assert best_sizes(ALL) == ALL


def test_sizes_of_ways_that_are_not_taken_are_not_measured(timed: Any) -> None:
    asked = timed(lambda _: 1.0)
    best_sizes(CpuChoices(bf16_products=False))
    assert set(asked) == {"float32_dense_tokens"}
    best_sizes(CpuChoices(bf16_products=True))
    assert set(asked) == {"float32_dense_tokens", "bf16_scores"}


@pytest.mark.parametrize("name", SIZES)
def test_what_is_measured_computes_the_same_in_every_size(name: str) -> None:
    results = []
    for value in (getattr(ALL, name), *SIZES[name].others):
        choices = replace(default_choices(), **{name: value})
        with using_choices(choices):
            results.append(SIZES[name].work(choices)())
    usual, *others = results
    assert others
    for other in others:
        for found, expected in zip(other, usual, strict=True):
            torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_every_size_is_an_entry_of_the_choices() -> None:
    assert all(type(getattr(ALL, name)) is int for name in SIZES)
