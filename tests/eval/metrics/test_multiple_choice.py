"""Multiple choice: options found in a question, and the one that an answer names."""

import pytest

from smolvlm.eval.metrics.multiple_choice import chosen_option, multiple_choice, question_options

OPTIONS = {"A": "a red car", "B": "a blue car", "C": "car", "D": "nothing"}
QUESTION = "What is parked?\n" + "\n".join(f"{letter}. {text}" for letter, text in OPTIONS.items())


@pytest.mark.parametrize(
    "question",
    [
        QUESTION,
        "What?\n(A) a red car\n(B) a blue car\n(C) car\n(D) nothing\nAnswer with a letter.",
        "What? (A) a red car (B) a blue car (C) car (D) nothing",
        "Options:\n A) a red car\n B) a blue car\n C) car\n D) nothing",
    ],
)
def test_options_stand_in_the_question(question: str) -> None:
    found = question_options(question)
    assert list(found) == list("ABCD")
    assert [found[letter].removesuffix("\n") for letter in "ABC"] == list(OPTIONS.values())[:3]


@pytest.mark.parametrize(
    "question", ["", "Who is A. Smith?", "B. first\nC. second", "A. alone", "(A) alone"]
)
def test_other_questions_have_none(question: str) -> None:
    assert question_options(question) == {}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("B. a blue car", "B"),
        ("**B.** It is blue", "B"),
        ("(B) blue", "B"),
        ("Blue car", "B"),
        ("A blue car.", "B"),
        ("car", "C"),
        ("The answer is B", "B"),
        ("the answer is (B), since it is blue.", "B"),
        ("Answer: B", "B"),
        ("Not A. The answer is B.", "B"),
        ("First option A, but the right answer is D", "D"),
        ("I see the car (B) here", "B"),
        ("There is a red car on the road", "A"),
        ("A red car or a blue car", None),
        ("either (A) or (B)", None),
        ("The answer is a bus", None),
        ("E", None),
        ("", None),
        ("I do not know", None),
    ],
)
def test_what_an_answer_names(answer: str, letter: str | None) -> None:
    assert chosen_option(answer, OPTIONS) == letter


def test_letter_and_text_of_an_option_are_one_reference() -> None:
    for reference in ("B", "(b)", "a blue car", "B. a blue car"):
        assert multiple_choice("It must be B.", [reference], question=QUESTION) == 0.0
        assert multiple_choice("The answer is B.", [reference], question=QUESTION) == 1.0
        assert multiple_choice("a blue car", [reference], question=QUESTION) == 1.0
        assert multiple_choice("A", [reference], question=QUESTION) == 0.0


def test_without_options_letters_and_texts_are_compared() -> None:
    assert multiple_choice("(C)", ["C"]) == 1.0
    assert multiple_choice("the Dog", ["dog"]) == 1.0
    assert multiple_choice("dog", ["C"]) == 0.0
    assert multiple_choice("", ["C"]) == 0.0
