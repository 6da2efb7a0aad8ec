"""A chat template as llama.cpp has to read it.

llama.cpp gives a template no `image` parts: a picture comes as a part of type `media_marker`, or as
text that is the marker. The family's template asks whether the first part is an image and writes
"User:" then, else "User: ". It would write the second, one token that was never trained there, and
other answers follow. So the template is mended before it goes into the file.
"""

import re

_FIRST_IS_IMAGE = re.compile(
    r"(?P<part>\w+\[(?P<quote>['\"])content(?P=quote)\]\[0\])"
    r"\[(?P=quote)type(?P=quote)\] *== *(?P=quote)image(?P=quote)"
)
_IS_TEXT = re.compile(
    r"(?P<part>\w+)\[(?P<quote>['\"])type(?P=quote)\] *== *(?P=quote)text(?P=quote)"
)
MARKER_START = "<__media"
"""What every marker begins with; the rest is drawn anew by each server."""


def mended_template(template: str) -> str:
    """Return a template that writes for llama.cpp's parts what it writes for images.

    One that asks for images in other words stays as it is; the proof then shows what it does.
    """
    return _FIRST_IS_IMAGE.sub(_first_is_media, _IS_TEXT.sub(_is_words, template))


def _is_words(match: re.Match[str]) -> str:
    part, quote = match["part"], match["quote"]
    kind = f"{part}[{quote}type{quote}]"
    return f"({kind} == {quote}text{quote} or {kind} == {quote}media_marker{quote})"


def _first_is_media(match: re.Match[str]) -> str:
    part, quote = match["part"], match["quote"]
    kind, text = (f"{part}[{quote}{key}{quote}]" for key in ("type", "text"))
    is_marker = f"{text}.startswith({quote}{MARKER_START}{quote})"
    return (
        f"({kind} == {quote}image{quote} or {kind} == {quote}media_marker{quote}"
        f" or ({kind} == {quote}text{quote} and {is_marker}))"
    )
