"""`smolvlm chat`: questions typed, answers as they are generated.

Answers go to standard output, all else to standard error, so that a question on the command line,
or lines piped in, leave answers alone there.
"""

import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from smolvlm.errors import SmolVLMError
from smolvlm.records import Media
from smolvlm.runs.chat import Chat, Reply, chat_with_base, open_chat
from smolvlm.terminal import say, say_piece
from smolvlm.train.cpu_ways import computing_as_trained

HELP = """\
type a question; what was said before stays in sight
/open FILE ...  show pictures or clips with the next question
/base           ask the base too, or no longer
/new            begin a new conversation
/help           these lines
Ctrl-C          cut an answer short; Ctrl-D ends"""


@dataclass(slots=True)
class _Talk:
    """A conversation, and the same questions asked of the base where that is wanted."""

    checkpoint: str
    tuned: Chat
    base: Chat | None = None
    asks_base: bool = False
    shown: list[Path] = field(default_factory=list)
    """Files that go with the next question."""
    ready: list[Media] = field(default_factory=list)

    def show(self, files: Sequence[Path]) -> None:
        """Open media for the next question; all or none."""
        self.ready += [self.tuned.check(file) for file in files]
        self.shown += files

    def switch_base(self) -> None:
        """Ask the base from now on, or no longer; it has seen nothing of the conversation."""
        if self.base is None:
            say("loading the base")
            self.base = chat_with_base(self.tuned, self.checkpoint)
        self.asks_base = not self.asks_base

    def restart(self) -> None:
        """Begin anew."""
        for chat in (self.tuned, self.base):
            if chat is not None:
                chat.restart()
        self.ready, self.shown = [], []

    def ask(self, question: str) -> None:
        """Print what is answered. Media are gone with the question once all have answered."""
        sides = [("tuned", self.tuned)]
        if self.asks_base and self.base is not None:
            sides.append(("base", self.base))
        for name, chat in sides:
            if len(sides) > 1:
                say_piece(f"{name}: ")
            reply = chat.ask(question, self.ready, on_text=say_piece)
            say_piece("\n")
            say(_pace(reply))
        self.ready, self.shown = [], []


def run_chat(
    checkpoint: str,
    media: Sequence[Path],
    *,
    question: str | None,
    with_base: bool,
    system: str | None,
    max_new_tokens: int,
    device: str | None,
) -> None:
    """Answer one question, or those that are typed or piped in.

    Raises:
        ConfigError, SampleError: there is no such checkpoint, its base is not known, a file cannot
            be shown; and whatever goes wrong with a question of the command line.
    """
    tuned = open_chat(checkpoint, device=device, system=system, max_new_tokens=max_new_tokens)
    talk = _Talk(checkpoint, tuned)
    with computing_as_trained(checkpoint, tuned.model.checkpoint.model.device):
        _answer_all(talk, media, question=question, with_base=with_base)


def _answer_all(
    talk: _Talk, media: Sequence[Path], *, question: str | None, with_base: bool
) -> None:
    talk.show(media)
    if with_base:
        talk.switch_base()
    if question is not None:
        talk.ask(question)
        return
    is_typed = sys.stdin.isatty()
    if is_typed:
        say(f"{talk.checkpoint}\n{HELP}")
    for line in _lines(is_typed=is_typed):
        _obey(talk, line)


def _obey(talk: _Talk, line: str) -> None:
    """Do what a line says; what is wrong is said, and the conversation goes on."""
    word, _, rest = line.partition(" ")
    commands: dict[str, Callable[[], None]] = {
        "/open": lambda: talk.show([Path(name).expanduser() for name in shlex.split(rest)]),
        "/base": talk.switch_base,
        "/new": talk.restart,
        "/help": lambda: say(HELP),
    }
    try:
        if word in commands:
            commands[word]()
        elif word.startswith("/") and "/" not in word[1:]:
            say(f"error: {word} is no command; /help lists them")
        else:
            with _cut_by_ctrl_c():
                talk.ask(line)
    except KeyboardInterrupt:
        say("\n(cut short; the question is not part of the conversation)")
    except (SmolVLMError, ValueError) as error:
        say(f"error: {error}")


def _lines(*, is_typed: bool) -> Iterator[str]:
    """Yield what is typed, or what is piped in; empty lines are passed over."""
    if is_typed:
        import readline  # noqa: F401 - lends `input` its editing and its history
    while True:
        try:
            line = input("> " if is_typed else "").strip()
        except EOFError:
            if is_typed:
                say("")
            return
        if line:
            yield line


@contextmanager
def _cut_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the block by KeyboardInterrupt, and not the command."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _pace(reply: Reply) -> str:
    if not reply.text:
        return f"(an empty answer, after {reply.first_s:.1f} s)"
    tokens = f"{reply.num_tokens} token{'s' * (reply.num_tokens != 1)}"
    return f"({tokens}, the first after {reply.first_s:.1f} s, then {reply.tokens_per_s:.1f}/s)"
