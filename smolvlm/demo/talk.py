"""One person's conversation with a model, and the same with its base beside it.

In: questions with files. Out: what the page shows, anew for every piece of an answer. A question is
part of the conversation once all sides have answered it; cut short, or failed, of none. Sides share
weights with other conversations, so one question is answered at a time.
"""

import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from smolvlm.demo.uploads import UploadLimits, open_uploads, without_folder
from smolvlm.errors import SmolVLMError
from smolvlm.records import Media
from smolvlm.runs.chat import Chat, Reply
from smolvlm.terminal import say

GATHERED_S = 0.1
"""Pieces of an answer that come within it are shown together."""
ANSWERING = "Answering."
WAITING = "Waiting until somebody else's question is answered."
STOPPED = "Stopped. The question is not part of the conversation."
BROKEN = "This went wrong, by no fault of yours. The terminal that the page runs in says more."


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """A question and what each side said to it."""

    question: str
    files: tuple[Path, ...]
    answers: tuple[str, ...]
    """A side each, in their order; what there is of them so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a page shows."""

    exchanges: tuple[Exchange, ...]
    note: str = ""
    """A sentence or two below the conversation."""
    is_error: bool = False
    is_busy: bool = False
    """Whether an answer is on its way."""
    asked_again: str | None = None
    """The question, to be put back where it was typed; None leaves that place as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """The models that answer, shared by all who ask."""

    tuned: Chat
    base: Chat | None = None
    limits: UploadLimits = field(default_factory=UploadLimits)
    is_taken: threading.Lock = field(default_factory=threading.Lock)
    """Held while one of them answers."""

    def talk(self) -> "Talk":
        """Return a conversation, yet to begin."""
        chats = [chat.twin(chat.model, is_base_of_adapter=chat.is_base_of_adapter) for chat in self]
        return Talk(chats, self)

    def __iter__(self) -> Iterator[Chat]:
        return iter([self.tuned] if self.base is None else [self.tuned, self.base])


@dataclass(frozen=True, slots=True)
class _Piece:
    side: int
    text: str


class _Cut(BaseException):
    """Nobody waits for the answer any more."""


class Talk:
    """A conversation of one person."""

    def __init__(self, chats: Sequence[Chat], sides: Sides) -> None:
        self._chats = chats
        self._sides = sides
        self._exchanges: tuple[Exchange, ...] = ()
        self._asked = ""
        self._answering: _Answering | None = None

    def view(self) -> View:
        """Return the conversation as it stands."""
        return View(exchanges=self._exchanges)

    def restart(self) -> View:
        """Forget what was said, and cut an answer short that is on its way."""
        self.stop()
        with self._sides.is_taken:
            for chat in self._chats:
                chat.restart()
            self._exchanges = ()
        return View(exchanges=(), note="A new conversation.")

    def stop(self) -> None:
        """Cut an answer short that is on its way: `ask` then ends, from whatever thread."""
        if self._answering is not None:
            self._answering.stop()

    def ask(self, question: str, files: Sequence[Path]) -> Generator[View]:
        """Yield the conversation with the answers as they grow; closing it cuts them short too.

        Args:
            question: what was typed.
            files: uploaded with it.
        """
        self._asked = question.strip()
        if not self._asked:
            yield replace(self.view(), note="Type a question.", is_error=True)
            return
        pending = Exchange(
            question=self._asked, files=tuple(files), answers=("",) * len(self._chats)
        )
        try:
            media = open_uploads(files, self._sides.limits, check=self._chats[0].check)
            yield from self._answered(pending, media)
        except SmolVLMError as error:
            for path in files:
                error = without_folder(error, path)
            yield self._failed(sentences(error))
        except Exception:  # of any library that opens or answers; the page goes on for the others
            say(traceback.format_exc())
            yield self._failed(BROKEN)

    def _failed(self, note: str) -> View:
        return replace(self.view(), note=note, is_error=True, asked_again=self._asked)

    def _answered(self, pending: Exchange, media: Sequence[Media]) -> Iterator[View]:
        lock = self._sides.is_taken
        work = self._answering = _Answering(self._chats, pending, media, lock)
        yield self._growing(pending, WAITING if lock.locked() else ANSWERING)
        try:
            for pieces in work.pieces():
                answers = list(pending.answers)
                for piece in pieces:
                    answers[piece.side] += piece.text
                pending = replace(pending, answers=tuple(answers))
                yield self._growing(pending, ANSWERING)
        except _Cut:
            yield replace(self.view(), note=STOPPED, asked_again=self._asked)
            return
        finally:
            self._answering = None
        replies = work.replies
        self._exchanges += (replace(pending, answers=tuple(reply.text for reply in replies)),)
        yield replace(self.view(), note=pace(replies))

    def _growing(self, pending: Exchange, note: str) -> View:
        exchanges = (*self._exchanges, pending)
        return View(exchanges=exchanges, note=note, is_busy=True, asked_again="")


class _Answering:
    """Asks all sides in a thread of its own, which the page's server need not wait for."""

    def __init__(
        self, chats: Sequence[Chat], asked: Exchange, media: Sequence[Media], lock: threading.Lock
    ) -> None:
        self._chats, self._asked, self._media, self._lock = chats, asked, media, lock
        self._arrived: SimpleQueue[_Piece | BaseException | None] = SimpleQueue()
        self._is_cut = threading.Event()
        self._is_done = False
        self._deciding = threading.Lock()
        """Held while it is decided whether the answers are whole or cut short: never both."""
        self.replies: list[Reply] = []
        """A side each, once all pieces were taken."""

    def pieces(self) -> Iterator[list[_Piece]]:
        """Yield pieces of answers, one side after the other; raises what a side raises."""
        threading.Thread(target=self._work, daemon=True).start()
        try:
            while True:
                arrived = self._arrived_together()
                for item in arrived:
                    if isinstance(item, BaseException):
                        raise item
                yield [item for item in arrived if isinstance(item, _Piece)]
                if None in arrived:
                    return
        finally:
            self._is_cut.set()

    def _arrived_together(self) -> list[_Piece | BaseException | None]:
        """Return what comes next and within `GATHERED_S` of it: a browser that draws every token
        falls behind a fast model."""
        arrived = [self._arrived.get()]
        end = time.monotonic() + GATHERED_S
        while isinstance(arrived[-1], _Piece) and (left_s := end - time.monotonic()) > 0:
            try:
                arrived.append(self._arrived.get(timeout=left_s))
            except Empty:
                break
        return arrived

    def stop(self) -> None:
        """Let `pieces` end by `_Cut`, unless the answers are whole."""
        with self._deciding:
            if not self._is_done:
                self._is_cut.set()
                self._arrived.put(_Cut())

    def _work(self) -> None:
        with self._lock:
            lengths = [len(chat.turns) for chat in self._chats]
            try:
                for side, chat in enumerate(self._chats):
                    self.replies.append(self._ask(side, chat))
                with self._deciding:
                    self._go_on()
                    self._is_done = True
            except BaseException as error:
                for chat, length in zip(self._chats, lengths, strict=True):
                    chat.rewind(length)
                self._arrived.put(error)
            else:
                self._arrived.put(None)

    def _ask(self, side: int, chat: Chat) -> Reply:
        def on_text(text: str) -> None:
            self._go_on()
            self._arrived.put(_Piece(side, text))

        self._go_on()
        return chat.ask(self._asked.question, self._media, on_text=on_text)

    def _go_on(self) -> None:
        if self._is_cut.is_set():
            raise _Cut


def sentences(error: SmolVLMError) -> str:
    """Return an error as a page shows it: what is wrong, and what to do, a sentence each."""
    is_placed = error.where is None or error.where in error.what
    what = error.what if is_placed else f"{error.where}: {error.what}"
    parts = [what] if error.fix is None else [what, error.fix[:1].upper() + error.fix[1:]]
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts)


def pace(replies: Sequence[Reply]) -> str:
    """Return how long the answers took, a side each."""
    names = ("", "") if len(replies) == 1 else ("Tuned: ", "Base: ")
    return " ".join(
        f"{name}{reply.num_tokens} token{'s' * (reply.num_tokens != 1)} in {reply.seconds:.1f} s."
        for name, reply in zip(names, replies, strict=False)
    )
