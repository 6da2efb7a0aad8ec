"""Questions and answers about the benchmark's pictures: real English, drawn from a seeded
generator.

In: a picture's subject and a generator. Out: questions of 5 to 20 words, and answers whose lengths
are mixed as in published instruction sets: words and short phrases as in visual question answering,
single sentences, and captions of up to about 150 words. Only the lengths matter to the timings, but
real sentences tokenise as real ones do.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What a picture shows, in phrases that fit the sentence frames below."""

    setting: str
    things: tuple[str, ...]


SUBJECTS: dict[str, Subject] = {
    "astronaut.png": Subject(
        setting="a portrait studio",
        things=(
            "a smiling astronaut",
            "an orange flight suit",
            "a national flag",
            "a model of a shuttle",
        ),
    ),
    "chelsea.png": Subject(
        setting="a quiet living room",
        things=("a tabby cat", "a pair of green eyes", "a white whisker", "a soft reddish coat"),
    ),
    "coffee.png": Subject(
        setting="a small café",
        things=("a cup of espresso", "a metal spoon", "a round saucer", "a dark wooden table"),
    ),
    "rocket.jpg": Subject(
        setting="a launch site before dawn",
        things=(
            "a slender rocket",
            "a tall service tower",
            "a row of floodlights",
            "a cloud of vapour",
        ),
    ),
    "hubble_deep_field.jpg": Subject(
        setting="a patch of deep sky",
        things=(
            "a bright spiral galaxy",
            "a faint red smudge",
            "a lonely foreground star",
            "a cluster of small discs",
        ),
    ),
    "ihc.png": Subject(
        setting="a stained tissue slide",
        things=("a brown gland", "a pale blue nucleus", "a fold of tissue", "an empty white gap"),
    ),
    "retina.jpg": Subject(
        setting="an eye examination",
        things=(
            "a bright optic disc",
            "a branching vessel",
            "a dark macula",
            "an orange background",
        ),
    ),
    "camera.png": Subject(
        setting="an open lawn",
        things=(
            "a man in a long coat",
            "a camera on a tripod",
            "a row of distant buildings",
            "a grey winter sky",
        ),
    ),
    "coins.png": Subject(
        setting="a museum drawer",
        things=(
            "a worn bronze coin",
            "a profile of an emperor",
            "a chipped edge",
            "a row of smaller coins",
        ),
    ),
    "motorcycle_left.png": Subject(
        setting="a crowded workshop",
        things=(
            "a parked motorcycle",
            "a black leather seat",
            "a shelf of boxes",
            "a spoked front wheel",
        ),
    ),
    "moon.png": Subject(
        setting="a view through a telescope",
        things=("a deep crater", "a flat dark plain", "a sharp shadow", "a chain of small hills"),
    ),
    "brick.png": Subject(
        setting="the side of an old house",
        things=(
            "a course of red bricks",
            "a line of grey mortar",
            "a chipped corner",
            "a darker patch of wall",
        ),
    ),
    "grass.png": Subject(
        setting="a meadow seen from above",
        things=(
            "a tuft of long grass",
            "a fallen brown leaf",
            "a dry stalk",
            "a patch of bare soil",
        ),
    ),
    "gravel.png": Subject(
        setting="a garden path",
        things=(
            "a rounded pebble",
            "a splinter of slate",
            "a handful of sand",
            "a larger pale stone",
        ),
    ),
}
"""File of the scikit-image package -> what it shows."""

_QUESTIONS = (
    "What is in the picture, apart from {first}?",
    "Where in the picture would you look for {first}?",
    "Is there {first} anywhere in this photograph?",
    "Which is closer to the viewer, {first} or {second}?",
    "How many times can you see {first} here?",
    "Describe this picture in a few sentences, and start with {first}.",
    "What colour is {first}, and does it differ much from {second} beside it?",
    "If someone had never seen {setting}, how would you explain what {first} is doing here?",
    "Was the picture taken by day or by night?",
    "Does the light fall on {first} from the left or from the right?",
)
_WORDS = (
    "yes",
    "no",
    "two",
    "left",
    "right",
    "grey",
    "brown",
    "three",
    "behind it",
    "in the middle",
    "by day",
    "none",
)
_SHORT = (
    "It is {first}, a little to the left of the centre.",
    "You can see {first} in front of {second}.",
    "The light comes from the right, so {first} throws a short shadow.",
    "No, there is only {first}, and behind it {second}.",
)
_LONG = (
    "The picture shows {setting}, and the eye is drawn to {first} at once.",
    "A little further back there is {second}, partly hidden and slightly out of focus.",
    "The colours are muted, which makes {first} stand out even more clearly.",
    "On the left the frame is filled by {second}, while the right side is almost empty.",
    "Nothing in the scene seems to move; it could have been taken at any hour of the day.",
    "Looking closely, one notices how the surface of {first} catches the light.",
    "It is hard to tell how large {second} really is, because nothing beside it gives the scale.",
    "Whoever took the photograph stood quite near and held the camera a little too low.",
    "Overall the mood is calm, and {first} seems to belong exactly where it is.",
    "Between {first} and {second} there is a narrow strip of shadow.",
    "The background is plain enough that no detail distracts from {first}.",
)


def draw_question(subject: Subject, random: np.random.Generator) -> str:
    """Return a question of 5 to 20 words."""
    return _fill(_QUESTIONS[random.integers(len(_QUESTIONS))], subject, random)


def draw_answer(subject: Subject, random: np.random.Generator) -> str:
    """Return an answer: a word or two (45 %), a sentence (30 %), or a caption of 40 to 150 words
    (25 %)."""
    kind = random.random()
    if kind < 0.45:
        return str(random.choice(_WORDS))
    if kind < 0.75:
        return _fill(_SHORT[random.integers(len(_SHORT))], subject, random)
    return draw_caption(subject, random)


def draw_caption(subject: Subject, random: np.random.Generator) -> str:
    """Return a caption of 40 to 150 words."""
    num_words = int(random.integers(40, 140))
    sentences: list[str] = []
    for frame in _cycle(random):
        sentences.append(_fill(frame, subject, random))
        if sum(len(sentence.split()) for sentence in sentences) >= num_words:
            return " ".join(sentences)
    raise AssertionError("the cycle never ends")


def _cycle(random: np.random.Generator):
    while True:
        yield from (_LONG[number] for number in random.permutation(len(_LONG)))


def _fill(frame: str, subject: Subject, random: np.random.Generator) -> str:
    first, second = random.permutation(len(subject.things))[:2]
    text = frame.format(
        first=subject.things[first], second=subject.things[second], setting=subject.setting
    )
    return text[0].upper() + text[1:]
