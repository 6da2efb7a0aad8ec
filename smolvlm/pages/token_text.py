"""How a token's text is shown: control characters made visible, runs of image tokens folded.

Rows come from anywhere; a terminal must not obey the escape sequences in them, nor a page lose its line breaks.
"""

from smolvlm.pages.inspect_records import TokenRun

NEWLINE = "↵"
SHOWN_AS_THEY_ARE = "\n\N{IDEOGRAPHIC SPACE}\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
"""Not printable by Unicode's classes, and yet part of ordinary text in some scripts."""


def shown_text(text: str) -> str:
    r"""Return `text` with every control character but the newline written out: an escape becomes `\x1b`."""
    return "".join(_shown(character) for character in text)


def run_label(run: TokenRun) -> str:
    """Return what stands for a run of image tokens: `64 x <image>`, and of which frames they are the mean."""
    label, times_s = f"{run.count} x {run.text}", run.times_s
    if len(times_s) < 2:
        return label
    return f"{label} (mean of {len(times_s)} frames, {times_s[0]:.2f} to {times_s[-1]:.2f} s)"


def plural(count: int, noun: str) -> str:
    """Return `1 tile`, `17 tiles`, `1,137 tokens`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def percent(share: float, *, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _shown(character: str) -> str:
    if character.isprintable() or character in SHOWN_AS_THEY_ARE:
        return character
    return character.encode("unicode_escape").decode("ascii")
