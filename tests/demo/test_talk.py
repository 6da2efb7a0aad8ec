"""A conversation on the page is that of `smolvlm chat`, side by side, whole or not at all."""

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from smolvlm.demo.talk import BROKEN, STOPPED, WAITING, Sides, View, pace, sentences
from smolvlm.demo.uploads import UploadLimits
from smolvlm.errors import ConfigError, SampleError, SmolVLMError
from smolvlm.generate.text_stream import OnText
from smolvlm.records import Media
from smolvlm.runs.chat import Chat, Reply, chat_with_base, open_chat

NEW_TOKENS = 6
QUESTION = "What is it?"


@pytest.fixture(scope="module")
def tuned(run: Path) -> Chat:
    return open_chat(run, device="cpu", max_new_tokens=NEW_TOKENS)


@pytest.fixture(scope="module")
def base(tuned: Chat, run: Path) -> Chat:
    return chat_with_base(tuned, run)


@pytest.fixture
def sides(tuned: Chat, base: Chat) -> Sides:
    return Sides(tuned=tuned, base=base, limits=UploadLimits(max_files=2, max_file_mb=1))


def answers(sides: Sides, *questions: tuple[str, list[Path]]) -> tuple[str, ...]:
    """Return what each side says to the last of some questions, asked as `smolvlm chat` does."""
    said = []
    for chat in sides:
        fresh = chat.twin(chat.model)
        for question, files in questions:
            media = [fresh.check(file) for file in files]
            text = fresh.ask(question, media, on_text=lambda _: None).text
        said.append(text)
    return tuple(said)


def test_both_sides_answer_as_they_do_in_a_chat(
    sides: Sides, photos: dict[str, Path], clips: dict[str, Path]
) -> None:
    talk = sides.talk()
    clip = clips["steady"]
    shown = [photos["coffee"], clip]
    views = list(talk.ask(QUESTION, shown))
    assert all(view.is_busy for view in views[:-1])
    assert views[0].exchanges[0].answers == ("", "")
    assert views[0].asked_again == "", "the box is empty for the next question"
    last = views[-1]
    assert last.exchanges[0].answers == answers(sides, (QUESTION, shown))
    assert len(set(last.exchanges[0].answers)) == 2, "tuned and base differ"
    assert not last.is_busy
    assert last.note.startswith("Tuned: ")
    assert "Base: " in last.note
    (*_, last) = talk.ask(" And then? ", [])
    assert [exchange.question for exchange in last.exchanges] == [QUESTION, "And then?"]
    assert last.exchanges[1].answers == answers(sides, (QUESTION, shown), ("And then?", []))
    assert talk.restart().exchanges == ()
    (*_, last) = talk.ask("And then?", [])
    assert last.exchanges[0].answers == answers(sides, ("And then?", []))


def test_each_person_has_a_conversation_of_their_own(sides: Sides) -> None:
    one, other = sides.talk(), sides.talk()
    list(one.ask("My name is Anna.", []))
    (*_, last) = other.ask(QUESTION, [])
    assert len(last.exchanges) == 1
    assert last.exchanges[0].answers == answers(sides, (QUESTION, []))


def test_only_one_model_answers_where_there_is_no_base(tuned: Chat) -> None:
    (*_, last) = Sides(tuned=tuned).talk().ask(QUESTION, [])
    assert len(last.exchanges[0].answers) == 1
    assert "Tuned" not in last.note


def test_the_base_of_an_adapter_answers_without_it_in_every_conversation(tuned: Chat) -> None:
    base = tuned.twin(tuned.model, is_base_of_adapter=True)
    talk = Sides(tuned=tuned, base=base).talk()
    assert [chat.is_base_of_adapter for chat in talk._chats] == [False, True]


def failed(views: list[View], words: str) -> None:
    assert words in views[-1].note
    assert views[-1].is_error
    assert not views[-1].is_busy
    assert views[-1].exchanges == ()


def test_what_is_wrong_is_a_sentence_and_the_question_is_put_back(
    sides: Sides, photos: dict[str, Path], tmp_path: Path
) -> None:
    talk, other = sides.talk(), tmp_path / "uploads" / "no.png"
    other.parent.mkdir()
    other.write_text("no picture")
    failed(list(talk.ask("  ", [photos["coffee"]])), "Type a question.")
    failed(list(talk.ask(QUESTION, [photos["coffee"]] * 3)), "at most 2 are taken. Ask about")
    views = list(talk.ask(QUESTION, [photos["coffee"], other]))
    failed(views, "no.png is neither a picture nor a clip of a known kind. Show a JPEG")
    assert str(tmp_path) not in views[-1].note
    assert views[-1].asked_again == QUESTION


def test_a_picture_beyond_the_runs_own_bound_is_refused(sides: Sides, tmp_path: Path) -> None:
    from PIL import Image

    large = tmp_path / "large.png"
    Image.new("L", (400, 300)).save(large)  # `data.max_image_pixels` of the run is 100,000
    views = list(sides.talk().ask(QUESTION, [large]))
    failed(views, "large.png")
    assert "400 x 300" in views[-1].note
    assert str(tmp_path) not in views[-1].note


def test_a_conversation_that_is_too_long_is_said(sides: Sides, tuned: Chat) -> None:
    prompt = replace(tuned.model.prompt, context_tokens=20)
    narrow = Chat(replace(tuned.model, prompt=prompt), max_new_tokens=NEW_TOKENS)
    talk = Sides(tuned=narrow).talk()
    failed(list(talk.ask("a b c d e f g h i j k l m n o p q r s t", [])), "the model sees 20")


class Wrong(Chat):
    """A base that fails, or waits, in the middle of its answer."""

    act: Callable[[], None]

    def twin(self, model: Any, *, is_base_of_adapter: bool = False) -> "Wrong":
        assert not is_base_of_adapter
        twin = Wrong(model, max_new_tokens=NEW_TOKENS)
        twin.act = self.act
        return twin

    def ask(self, question: str, media: Any = (), *, on_text: OnText) -> Reply:
        def told(text: str) -> None:
            on_text(text)
            self.act()

        return super().ask(question, media, on_text=told)


def sides_with(tuned: Chat, base: Chat, act: Callable[[], None]) -> Sides:
    wrong = Wrong(base.model, max_new_tokens=NEW_TOKENS)
    wrong.act = act
    return Sides(tuned=tuned, base=wrong)


def test_answers_grow_one_side_after_the_other(tuned: Chat, base: Chat) -> None:
    seen = threading.Semaphore(0)

    def wait() -> None:
        assert seen.acquire(timeout=60)

    views = list[tuple[str, ...]]()
    for view in sides_with(tuned, base, wait).talk().ask(QUESTION, []):
        views.append(view.exchanges[-1].answers)
        seen.release()
    tuned_said = [one for one, _ in views]
    assert len({other for _, other in views}) > 2, "it is shown before it is whole"
    for earlier, later in pairwise(views):
        assert all(new.startswith(old) for old, new in zip(earlier, later, strict=True))
    assert all(one == tuned_said[-1] for one, other in views if other)


def test_a_bug_is_no_traceback_on_the_page(
    tuned: Chat, base: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("out of order")

    talk = sides_with(tuned, base, fail).talk()
    failed(list(talk.ask(QUESTION, [])), BROKEN)
    assert "out of order" in capsys.readouterr().err
    assert [len(chat.turns) for chat in talk._chats] == [0, 0], "the tuned side forgot it too"


@pytest.mark.parametrize("is_stopped", [True, False])
def test_an_answer_that_nobody_waits_for_is_cut_and_forgotten(
    tuned: Chat, base: Chat, is_stopped: bool
) -> None:
    is_amid, goes_on = threading.Event(), threading.Event()

    def wait() -> None:
        is_amid.set()
        assert goes_on.wait(60)

    sides = sides_with(tuned, base, wait)
    talk = sides.talk()
    views = talk.ask(QUESTION, [])
    while not is_amid.is_set():
        next(views)
    if is_stopped:
        talk.stop()
        *_, last = views
        assert (last.note, last.asked_again, last.exchanges) == (STOPPED, QUESTION, ())
    else:
        views.close()
    another = sides.talk().ask(QUESTION, [])
    assert next(another).note == WAITING
    another.close()
    goes_on.set()
    with sides.is_taken:  # whoever answered is done
        assert [len(chat.turns) for chat in talk._chats] == [0, 0]
    (*_, last) = talk.ask(QUESTION, [])
    assert last.exchanges[0].answers == answers(Sides(tuned=tuned, base=base), (QUESTION, []))


def test_one_question_is_answered_at_a_time(tuned: Chat, base: Chat) -> None:
    at_once = list[int]()
    num_asked = 0

    def count() -> None:
        at_once.append(num_asked)

    sides = sides_with(tuned, base, count)
    asked = tuned.__class__.ask

    def counted(
        self: Chat, question: str, media: list[Media] | tuple[()] = (), *, on_text: OnText
    ) -> Reply:
        nonlocal num_asked
        num_asked += 1
        try:
            return asked(self, question, media, on_text=on_text)
        finally:
            num_asked -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chat, "ask", counted)
        threads = [
            threading.Thread(target=lambda: list(sides.talk().ask(QUESTION, []))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(at_once) == {1}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("it is red", where="a.png", fix="paint it"), "a.png: it is red. Paint it."),
        (SampleError("a.png is red", where="a.png"), "a.png is red."),
        (SampleError("is it red?", fix="look!"), "is it red? Look!"),
    ],
)
def test_errors_as_sentences(error: SmolVLMError, text: str) -> None:
    assert sentences(error) == text


def test_pace() -> None:
    replies = [
        Reply(text="a", num_tokens=1, seconds=0.51, first_s=0.5),
        Reply(text="", num_tokens=12, seconds=2.0, first_s=0.5),
    ]
    assert pace(replies) == "Tuned: 1 token in 0.5 s. Base: 12 tokens in 2.0 s."
    assert pace(replies[1:]) == "12 tokens in 2.0 s."
