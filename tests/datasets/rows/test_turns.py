"""Who says what: both spellings of turns, their weights, system turns, histories, answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.datasets.rows.keys import SYSTEM_KEYS, WEIGHT_KEYS
from smolvlm.errors import SampleError
from tests.datasets.rows.row_cases import QA, convert, messages


def said(row: Any) -> list[tuple[str, tuple[Any, ...]]]:
    return [(turn.role, turn.blocks) for turn in convert(row).turns]


def test_each_spelling_of_turns_is_read_under_either_key() -> None:
    llava = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "x"}]
    openai = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]
    for key in ("messages", "conversations"):
        for turns in (llava, openai):
            assert said({key: turns}) == [("user", ("q",)), ("assistant", ("x",))]


@pytest.mark.parametrize("key", SYSTEM_KEYS)
def test_a_system_column_is_the_system_turn(key: str) -> None:
    system = ("system", ("Be brief.",))
    for row in (
        messages(("user", "q"), ("assistant", "x")),
        QA,
        {"instruction": "q", "output": "x"},
        {"texts": [{"user": "q", "assistant": "x"}]},
    ):
        assert said({**row, key: "Be brief."})[0] == system
        assert said({**row, key: ""})[0][0] == "user"
    pair = convert({"prompt": "q", "chosen": "x", "rejected": "y", key: "Be brief."})
    assert pair.turns[0] == pair.rejected[0]
    assert (pair.turns[0].role, pair.turns[0].blocks) == system
    both = messages(("system", "Be brief."), ("user", "q"), ("assistant", "x"))
    assert len(said({**both, key: "Be brief."})) == 3
    with pytest.raises(SampleError, match="different system turns"):
        convert({**both, key: "Be long."})


def test_a_history_stands_before_the_question() -> None:
    turns = [("user", ("a",)), ("assistant", ("b",)), ("user", ("q",)), ("assistant", ("x",))]
    assert said({**QA, "history": [["a", "b"]]}) == turns
    alpaca = {"instruction": "q", "output": "x"}
    assert said({**alpaca, "history": [["a", "b"]]}) == turns
    earlier = messages(("user", "a"), ("assistant", "b"))["messages"]
    assert said({**QA, "history": earlier}) == turns
    for history in ("a", [["a"]], [["a", "b", "c"]], [3]):
        with pytest.raises(SampleError, match="`history` is no list of questions and answers"):
            convert({**QA, "history": history})
    for row in (messages(("user", "q"), ("assistant", "x")), {"texts": [{}]}):
        with pytest.raises(SampleError):
            convert({**row, "history": [["a", "b"]]})


def test_the_input_of_an_instruction_follows_it() -> None:
    row = {"instruction": "Add.", "input": "2 and 3", "output": 5}
    assert said(row) == [("user", ("Add.\n2 and 3",)), ("assistant", ("5",))]
    assert said({**row, "input": ""})[0] == ("user", ("Add.",))
    renamed = {"question": "Add.", "answer": "5", "input": "2 and 3"}
    assert said(renamed)[0] == ("user", ("Add.\n2 and 3",))
    with pytest.raises(SampleError, match="`instruction` gives an instruction"):
        convert({**QA, "instruction": "Answer in one word."})


@pytest.mark.parametrize(
    ("answer", "text"), [(3, "3"), (2.5, "2.5"), (True, "true"), (False, "false"), (-0.0, "-0.0")]
)
def test_numbers_and_booleans_are_answers_as_json_writes_them(answer: Any, text: str) -> None:
    rows = [
        {"question": "q", "answer": answer},
        {"question": "q", "answers": [answer, "x"]},
        {"question": "q", "answers": [{"answer": answer, "answer_confidence": "yes"}]},
        messages(("user", "q"), ("assistant", answer)),
        messages(("user", "q"), ("assistant", [{"type": "text", "text": answer}])),
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": answer}]},
        {"texts": [{"user": "q", "assistant": answer}]},
        {"instruction": "q", "output": answer},
        {"prompt": "q", "chosen": answer, "rejected": "other"},
    ]
    for row in rows:
        assert said(row)[-1] == ("assistant", (text,))


def weights(*turns: dict[str, Any]) -> list[float]:
    content = [
        {"role": ("user", "assistant")[number % 2], "content": f"text {number}", **turn}
        for number, turn in enumerate(turns)
    ]
    return [turn.weight for turn in convert({"messages": content}).turns]


@given(key=st.sampled_from(WEIGHT_KEYS), weight=st.floats(0, 1e6) | st.booleans())
def test_a_turns_weight_in_every_spelling(key: str, weight: float) -> None:
    assert weights({}, {key: weight}, {}, {}) == [1.0, float(weight), 1.0, 1.0]
    assert weights({key: False}, {}, {key: 0}, {key: None}) == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("key", WEIGHT_KEYS)
def test_weights_that_cannot_be_meant(key: str) -> None:
    for value in (-1, "0", float("nan"), float("inf"), 10**400, [1]):
        with pytest.raises(SampleError, match=rf"`messages\[\]\.{key}` is "):
            weights({}, {key: value})
    with pytest.raises(SampleError, match="in a turn of the user's, which is not learned"):
        weights({key: True}, {})
    with pytest.raises(SampleError, match="no assistant turn is learned"):
        weights({}, {key: 0})
    chosen = [{"role": "assistant", "content": "x", key: 0.5}]
    with pytest.raises(SampleError, match="no preference loss knows"):
        convert({"prompt": "q", "chosen": chosen, "rejected": "y"})
    pair = {"user": "q", "assistant": "x"}
    texts = [{**pair, key: 0.5}, pair]
    assert [turn.weight for turn in convert({"texts": texts}).turns] == [1.0, 0.5, 1.0, 1.0]


def test_two_spellings_of_a_weight_are_not_chosen_between() -> None:
    with pytest.raises(SampleError, match=r"`messages\[\]\.weight` and `messages\[\]\.loss` both"):
        weights({}, {"weight": 1, "loss": False})
