"""Multiple choice: which of a question's lettered options an answer names (MMMU, AI2D, ScienceQA).

In: answer, references and question as texts. Out: 1 or 0. The options are read from the question,
in the form that rows with `options` are asked in (`A. cat`, a line each) and in the usual others.
"""

import re
from collections.abc import Mapping, Sequence

from smolvlm.eval.metrics.exact_match import normalize_answer

_LINE = re.compile(r"^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$", re.MULTILINE)
"""An option on a line of its own: `A. cat`, `(A) cat`, `A) cat`, `A: cat`."""
_INLINE = re.compile(r"\(([A-Z])\)\s*(\S.*?)\s*(?=\([A-Z]\)|$)", re.DOTALL)
"""One of several on a line: `(A) cat (B) dog`."""
_ALONE = re.compile(r"^\W*([A-Za-z])\W*$")
"""`B`, `(b)`, `**B.**`."""
_LEADING = re.compile(r"^\W*([A-Z])(?:[.):]\**|\*\*)(?=\s|$)")
"""`B. dog`, `(B) dog`, `B: since ...`."""
_STATED = re.compile(
    r"\b(?:answer|option|choice)(?:\s+is)?\s*[:=]?\s*[*(\[\"']*([A-Z])(?=[)\].,;:*\"'!]|\s*$|\s*\n)",
    re.IGNORECASE,
)
"""`The answer is (B).`, `Answer: B`, `option B`; the letter itself is upper case."""
_BRACKETED = re.compile(r"\(([A-Z])\)")


def question_options(question: str) -> dict[str, str]:
    """Return letter -> text of the options that a question lists, `A` first; empty without any."""
    for pattern in (_LINE, _INLINE):
        options: dict[str, str] = {}
        for letter, text in pattern.findall(question):
            if letter == chr(ord("A") + len(options)):
                options[letter] = text
        if len(options) > 1:
            return options
    return {}


def chosen_option(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that an answer names; None where it names none, or several.

    Tried in this order: a letter alone; the text of an option; a letter that leads (`B. dog`); one
    that is stated (`the answer is B`, the last that is); one in brackets, if it is the only one;
    the only option whose text stands in the answer.

    Args:
        text: the answer.
        options: of `question_options`; without any, every letter may be meant.
    """
    alone = _ALONE.match(text)
    if alone is not None and _is_option(alone[1].upper(), options):
        return alone[1].upper()
    said = normalize_answer(text)
    named = [letter for letter, option in options.items() if said == normalize_answer(option)]
    if len(named) == 1:
        return named[0]
    leading = _LEADING.match(text)
    stated = [letter for letter in _STATED.findall(text) if letter.isupper()]
    bracketed = list(dict.fromkeys(_BRACKETED.findall(text)))
    letters = [
        *([leading[1]] if leading is not None else []),
        *stated[-1:],
        *(bracketed if len(bracketed) == 1 else []),
    ]
    for letter in letters:
        if _is_option(letter, options):
            return letter
    return _only_one_inside(f" {said} ", options)


def _is_option(letter: str, options: Mapping[str, str]) -> bool:
    return letter in options or not options


def _only_one_inside(said: str, options: Mapping[str, str]) -> str | None:
    """Return the only option whose words stand in the answer; of one within another, the longer."""
    texts = {letter: f" {normalize_answer(option)} " for letter, option in options.items()}
    found = {letter: text for letter, text in texts.items() if text.strip() and text in said}
    longest = [
        letter
        for letter, text in found.items()
        if not any(text != other and text in other for other in found.values())
    ]
    return longest[0] if len(longest) == 1 else None


def multiple_choice(answer: str, references: Sequence[str], *, question: str = "") -> float:
    """Return 1 where the answer names the option that a reference names, else 0.

    Where the reference names no option (it is neither a letter nor an option's text), the two are
    compared as by `exact_match`. An answer that names none is worth 0: nothing is guessed.

    Args:
        answer: what was said: `B`, `(B)`, `B. dog`, `dog`, `The answer is B.`
        references: letters or options' texts.
        question: where the options stand, if they do.
    """
    options = question_options(question)
    chosen = chosen_option(answer, options)
    for reference in references:
        meant = chosen_option(reference, options)
        if meant is None:
            if normalize_answer(answer) == normalize_answer(reference):
                return 1.0
        elif meant == chosen:
            return 1.0
    return 0.0
