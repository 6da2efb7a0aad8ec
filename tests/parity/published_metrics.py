"""What published code says of a few hundred answers: makes `published_metrics.json`.

    pip install --no-deps --target PEERS lmms-eval==0.7.3 pycocoevalcap==1.2
    python -m tests.parity.published_metrics PEERS

The packages need not import (lmms-eval wants other versions than this project's): the functions
that score are taken out of their files as they are, and called. The tokeniser of captions runs on
Java. Answers are put together by a seeded generator out of what people and models write.
"""

import ast
import copy
import json
import math
import random
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".json")
VQA_PROCESSOR = "lmms_eval/tasks/_task_utils/vqa_eval_metric.py"
VQA = "lmms_eval/tasks/vqav2/utils.py"
ANLS = "lmms_eval/api/metrics.py"
CHARTS = "lmms_eval/tasks/chartqa/utils.py"
BOXES = "lmms_eval/tasks/refcoco/utils_rec.py"
CHOICES = "lmms_eval/tasks/_task_utils/mmmu_mcq_utils.py"
CIDER = "pycocoevalcap/cider/cider_scorer.py"

WORDS = (
    *("yes", "no", "cat", "the cat", "a dog", "two", "Ten", "none", "stop sign", "frisbee", "NYC"),
    *(
        "dont know",
        "can't tell",
        "it's",
        "theyre playing",
        "y'all",
        "somebody'd",
        "I'd've",
        "oclock",
    ),
    *("black and white", "black/white", "t-shirt", "5", "3.5", "1,000", "12:30", "$4.99", "50%"),
    *("St. John's", "U.S.A.", "e.g. cats", "what?!", "(left)", "left - right", "a_b", "café", "…"),
)
ENDS = ("", "", "", ".", " .", "!", "?", ",", ", ", ";", "\n", "\tmaybe", " 2", " (2)")
FIELDS = (
    *("$1,234.56", "March 3, 1998", "University of California", "0.28", "Dr. J. A. Smith", "TOTAL"),
    *("R. J. Reynolds", "12/04/97", "itc limited", "Straße", "n/a", "", "  two  spaces ", "İzmir"),
)
NUMBERS = (
    *("5", "5.0", "0", "0.0", "-3.2", "1e3", "50%", "0.5", "12 %", "3,000", "nan", "inf", "2019"),
    *("Yes", "yes", "Germany", "germany ", "", "%", "0.12%", "100", "95", "105", "94.9", "105.1"),
)
SUBJECTS = (
    *("a man", "two dogs", "the woman's cat", "a black-and-white cow", "people", "A young boy"),
    *("an old-fashioned bus", "3 children", "someone", "a T.V.", "the U.S. flag", "men"),
)
ACTIONS = (
    *("sitting on a bench", "riding a wave", "doesn't look at the camera", "playing frisbee"),
    *("standing next to a red car", "is eating pizza", "in front of a building", "at 5:30 p.m."),
    *("holding a 1/2 pint", "with its tail up", "flying a kite", "won't move", "cannot fly"),
    *(
        "that's 10% off",
        "selling fruit for $5",
        "wearing a #7 jersey",
        "it'll rain",
        "since the 1990s",
    ),
    *("eating 'cheese' [sic]", "from Dr. Smith", "at 3 o'clock", "I'm sure", "looks at Mt. Fuji"),
    *("they've left", "you'd say", "is gonna jump", "a co-worker's desk", "crème brûlée", "a&b"),
    *("don't and can't", "men's room", "the boys' bikes", "e.g. here", "No. 5", "x-ray vision"),
)
PLACES = (
    *("in the park.", "on the street", 'near a sign that says "stop"', "(at night)", "by the sea!"),
    *("; it is sunny", ", and it's raining", "... maybe", "- a photo", "on a rock & roll stage"),
    *("at 9 a.m.", "in the U.S.", "-- closed", "in NYC, NY", "with 1,000 others", "near no. 10"),
)
MODULES = {
    "re": re,
    "np": np,
    "statistics": statistics,
    "random": random,
    "math": math,
    "copy": copy,
    "defaultdict": defaultdict,
}
"""What those files import."""


def functions(
    peers: Path, file: str, *names: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the functions and classes of a file, without what decorates them and without running
    the rest of it.

    Args:
        peers: where the packages are.
        file: of one of them.
        names: of functions and classes.
        given: what else they call.
    """
    tree = ast.parse((peers / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = [node for node in tree.body if isinstance(node, kinds) and node.name in names]
    assert {node.name for node in found} == set(names), f"{file} has changed"
    for node in found:
        node.decorator_list = []
    space: dict[str, Any] = {**MODULES, **(given or {})}
    exec(compile(ast.Module(found, []), file, "exec"), space)
    return space


def vqa_cases(peers: Path, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yield answers with ten annotators, or a few, and how far they agree."""
    space = functions(peers, VQA_PROCESSOR, "EvalAIAnswerProcessor")
    score = functions(peers, VQA, "vqav2_process_results", given=space)["vqav2_process_results"]
    for _ in range(240):
        answer = draw.choice(WORDS) + draw.choice(ENDS)
        near = [answer, answer.strip(), answer.upper(), answer.rstrip(".!?, ")]
        count = draw.choice((10, 10, 10, 5, 2))
        references = [
            draw.choice(near) if draw.random() < 0.3 else draw.choice(WORDS) + draw.choice(ENDS)
            for _ in range(count)
        ]
        annotators = [{"answer": text, "id": place} for place, text in enumerate(references)]
        row = {"question_id": 0, "answers": annotators}
        value = float(score(row, [answer])["exact_match"])
        yield {"answer": answer, "references": references, "value": value}


def vqa_texts(peers: Path, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yield texts, and what is compared in their place."""
    processor = functions(peers, VQA_PROCESSOR, "EvalAIAnswerProcessor")["EvalAIAnswerProcessor"]()
    listed = [*processor.CONTRACTIONS, *processor.CONTRACTIONS.values(), *processor.NUMBER_MAP]
    made = [draw.choice(WORDS) + draw.choice(ENDS) + draw.choice(WORDS) for _ in range(160)]
    for text in [*listed, *made, "." * 40, "a.b." * 20]:
        plain = text.replace("\n", " ").replace("\t", " ").strip()
        value = processor.process_digit_article(processor.process_punctuation(plain))
        yield {"answer": text, "value": value}


def anls_cases(peers: Path, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yield misread fields."""
    score = functions(peers, ANLS, "levenshtein_distance", "anls")["anls"]
    for _ in range(240):
        references = [draw.choice(FIELDS) for _ in range(draw.choice((1, 1, 2, 3)))]
        answer = misread(draw.choice((*references, draw.choice(FIELDS))), draw)
        yield {
            "answer": answer,
            "references": references,
            "value": float(score(references, [answer])["anls"]),
        }


def misread(text: str, draw: random.Random) -> str:
    """Return a text with some letters lost, doubled, or changed in case."""
    made = "".join(
        draw.choice((sign, sign, sign, sign, sign.upper(), sign * 2, "", " ")) for sign in text
    )
    return draw.choice((text, made, f" {made}\n", text.upper()))


def relaxed_cases(peers: Path, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yield numbers near each other, and words."""
    score = functions(peers, CHARTS, "relaxed_correctness")["relaxed_correctness"]
    for answer in NUMBERS:
        for reference in NUMBERS:
            value = float(score(answer, reference))
            yield {"answer": answer, "references": [reference], "value": value}
    for _ in range(100):
        true = round(draw.uniform(-200, 200), draw.choice((0, 1, 3)))
        said = f"{true * draw.choice((1, 1.05, 0.95, 1.0501, 0.9499, 1.2)):.6g}"
        value = float(score(said, str(true)))
        yield {"answer": said, "references": [str(true)], "value": value}


def box_cases(peers: Path, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yield boxes as texts in three conventions, with overlap and centre."""
    names = ("parse_float_sequence_within", "compute_iou", "compute_accuracy")
    space = functions(peers, BOXES, *names, "compute_center_accuracy")
    read = space["parse_float_sequence_within"]
    for _ in range(160):
        size, digits = draw.choice(((1, 3), (1000, 0), (640, 1)))
        true, said = ([round(draw.random() * size, digits) for _ in range(4)] for _ in range(2))
        if draw.random() < 0.6:
            said = [round(number + draw.uniform(-0.1, 0.1) * size, digits) for number in true]
        ordered = [
            [*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])] for box in (true, said)
        ]
        if any(box[0] == box[2] or box[1] == box[3] for box in ordered):
            continue
        reference = str(ordered[0])
        answer = draw.choice(("{}", "It is at {}.", "{} and [1, 2]", "<box>{}</box>")).format(
            str(ordered[1])
        )
        boxes = read(reference), read(answer)
        yield {
            "answer": answer,
            "references": [reference],
            "iou": float(space["compute_iou"](*boxes)),
            "box_accuracy": float(space["compute_accuracy"](*boxes)),
            "point_in_box": float(space["compute_center_accuracy"](*boxes)),
        }


def choice_cases(peers: Path, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yield answers in the forms that models write."""
    name = "parse_mmmu_multi_choice_response"
    read = functions(peers, CHOICES, name)[name]
    sets = (
        ("a red car", "a blue car", "two trucks", "no vehicle"),
        ("Photosynthesis", "Respiration", "Osmosis"),
        ("$12", "$15", "$20", "$25", "$30"),
    )
    forms = (
        *("{letter}", "{letter}.", "({letter})", "({letter}) {text}", "{letter}. {text}"),
        *("The answer is ({letter}).", "The answer is {letter}.", "The correct option is {letter}"),
        *("The right one among these is clearly {text}", "It shows ({letter}), as far as I see"),
        "I would say that the answer must be ({letter})",
    )
    for options in sets:
        lettered = dict(zip("ABCDE", options, strict=False))
        lines = "\n".join(f"{letter}. {text}" for letter, text in lettered.items())
        for form in forms:
            for letter, text in lettered.items():
                answer = form.format(letter=letter, text=text)
                draw_reference = draw.choice(list(lettered))
                value = float(read(answer, list(lettered), lettered) == draw_reference)
                yield {
                    "answer": answer,
                    "question": f"Which one is it?\n{lines}",
                    "references": [draw.choice((draw_reference, lettered[draw_reference]))],
                    "value": value,
                }


def caption_sets(peers: Path, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yield sets of captions with their tokens, and the score of each row."""
    scorer = functions(peers, CIDER, "precook", "cook_refs", "cook_test", "CiderScorer")
    cut = java_tokens(peers)
    for num_rows, num_references in ((24, 5), (25, 1), (12, 3)):
        true = [[caption(draw) for _ in range(num_references)] for _ in range(num_rows)]
        said = [
            draw.choice((caption(draw), draw.choice(own), misread_words(draw.choice(own), draw)))
            for own in true
        ]
        tokens = iter(cut([*said, *(text for own in true for text in own)]))
        tokens_said = [next(tokens) for _ in said]
        tokens_true = [[next(tokens) for _ in own] for own in true]
        scores = scorer["CiderScorer"]()
        for hypothesis, own in zip(tokens_said, tokens_true, strict=True):
            scores += (hypothesis, own)
        mean, rows = scores.compute_score()
        yield {
            "answers": said,
            "references": true,
            "tokens": tokens_said,
            "reference_tokens": tokens_true,
            "value": float(mean),
            "rows": [float(score) for score in rows],
        }


def caption(draw: random.Random) -> str:
    return f"{draw.choice(SUBJECTS)} {draw.choice(ACTIONS)} {draw.choice(PLACES)}"


def misread_words(text: str, draw: random.Random) -> str:
    """Return a caption with words lost or doubled."""
    counts = draw.choice(((1,), (0, 1, 1, 1, 2)))
    words = [word for word in text.split() for _ in range(draw.choice(counts))]
    return " ".join(words) or "nothing"


def java_tokens(peers: Path) -> Callable[[Sequence[str]], list[str]]:
    """Return the published tokeniser of captions."""
    sys.path.insert(0, str(peers))
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def cut(captions: Sequence[str]) -> list[str]:
        texts = {number: [{"caption": text}] for number, text in enumerate(captions)}
        found = PTBTokenizer().tokenize(texts)
        return [found[number][0] for number in range(len(captions))]

    return cut


def made_of(peers: Path) -> dict[str, Any]:
    """Return all cases, and the versions of what scored them."""
    versions = {
        distribution.name: distribution.version
        for distribution in distributions(path=[str(peers)])
        if distribution.name in ("lmms_eval", "pycocoevalcap")
    }
    return {
        "versions": versions,
        "vqa_texts": list(vqa_texts(peers, random.Random(0))),
        "vqa_accuracy": list(vqa_cases(peers, random.Random(1))),
        "anls": list(anls_cases(peers, random.Random(2))),
        "relaxed_accuracy": list(relaxed_cases(peers, random.Random(3))),
        "grounding": list(box_cases(peers, random.Random(4))),
        "multiple_choice": list(choice_cases(peers, random.Random(5))),
        "captions": list(caption_sets(peers, random.Random(6))),
    }


def write(made: dict[str, Any]) -> None:
    """Write the file, a case a line."""
    parts = [
        f"{json.dumps(name)}: "
        + ("[\n" + ",\n".join(map(_line, part)) + "\n]" if isinstance(part, list) else _line(part))
        for name, part in made.items()
    ]
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    write(made_of(Path(sys.argv[1])))
