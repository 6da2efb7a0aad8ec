"""VQA accuracy (Antol et al. 2015): how far an answer agrees with ten annotators.

In: texts. Out: a share from 0 to 1. Normalisation and averaging are those of the evaluation that
VQA v2 is published with, its oddities included, so that numbers may be compared; a test holds both
equal to lmms-eval's copy of it.
"""

import re
from collections.abc import Iterator, Sequence

_SPLITTING = frozenset(';/[]"{}()=+\\_-><@`,?!')
"""Signs that become a space within a word, and vanish at its edge."""
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_POINT = re.compile(r"\.(?!\d)")
_MAX_POINTS = 32
"""How many points are dropped: the published code gives a flag's number in the place of a count."""
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't "
    "mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't "
    "she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd "
    "someone'd've someone'll someone's something'd something'd've something'll that's there'd "
    "there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've "
    "we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've "
    "who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll "
    "y'all'd've you'd you'd've you'll you're you've"
)


def _misspelt(word: str) -> Iterator[str]:
    """Yield a contraction with each of its apostrophes left out in turn."""
    for place, sign in enumerate(word):
        if sign == "'":
            yield word[:place] + word[place + 1 :]


_CONTRACTIONS = {wrong: word for word in _CONTRACTED.split() for wrong in _misspelt(word)} | {
    "somebody'd": "somebodyd"  # the wrong way round in the published table
}


def normalize_vqa(text: str) -> str:
    """Return an answer as the VQA evaluation compares it.

    Lower case; signs dropped at the edges of words and spaces within them; "none" and number words
    to ten as digits; no articles; apostrophes put back into contractions. A colon and an
    apostrophe stay.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    drops_all = _COMMA_IN_NUMBER.search(text) is not None
    kept = text
    for sign in _SPLITTING:
        is_edge = drops_all or f"{sign} " in text or f" {sign}" in text
        kept = kept.replace(sign, "" if is_edge else " ")
    words = _POINT.sub("", kept, count=_MAX_POINTS).lower().split()
    numbered = (_NUMBERS.get(word, word) for word in words)
    return " ".join(_CONTRACTIONS.get(word, word) for word in numbered if word not in _ARTICLES)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return min(1, matching annotators / 3), averaged over leaving each annotator out in turn.

    A single reference, which the published formula always scores 0, is worth 1 where it matches.

    Args:
        answer: what was said.
        references: one a annotator; VQA v2 and TextVQA have ten.

    Raises:
        ValueError: there are no references.
    """
    if not references:
        raise ValueError("an answer needs references to be compared with")
    normalized = normalize_vqa(answer)
    matches = [normalize_vqa(reference) == normalized for reference in references]
    if len(references) == 1:
        return float(matches[0])
    left_out = [min(1.0, (sum(matches) - match) / 3) for match in matches]
    return sum(left_out) / len(left_out)
