"""The page in a real browser: keyboard, files, errors, two people, and not one request elsewhere.

`make demo-check` makes an environment for it; DEMO_SHOTS names a folder to keep screenshots in.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from smolvlm.runs.chat import chat_with_base, open_chat
from tests.processes import LIMIT_S, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(
        find_spec("gradio") is None or find_spec("playwright") is None,
        reason="needs gradio and playwright: make demo-check",
    ),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]
NEW_TOKENS = 500
SECONDS = 1000.0
"""Playwright counts in milliseconds."""
EVIL = "Is it <img src=http://example.invalid/a.png> or ![b](http://example.invalid/b.png)?"


class Server:
    """`smolvlm demo` as a process of its own."""

    def __init__(self, run: Path, folder: Path, *, new_tokens: int = NEW_TOKENS) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.log = folder / "log"
        options = ["--max-new-tokens", str(new_tokens), "--max-files", "3", "--max-file-mb", "1"]
        command = [sys.executable, "-m", "smolvlm", "demo", str(run), "--device", "cpu", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                cwd=folder,
                env=os.environ
                | {
                    "TMPDIR": str(self.temporary),
                    "OMP_NUM_THREADS": "1",
                    "http_proxy": "http://127.0.0.1:9",  # nobody is there
                },
                stdout=log,
                stderr=log,
            )

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "Ctrl-C ends it" in self.log.read_text()


@contextmanager
def served(run: Path, folder: Path, *, new_tokens: int = NEW_TOKENS) -> Iterator[Server]:
    server = Server(run, folder, new_tokens=new_tokens)
    try:
        wait_until(server.is_ready, server.log.read_text)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(run, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Person:
    """A person at the page, in a browser of their own."""

    def __init__(self, browser: Any, server: Server, **settings: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1200, "height": 800}, **settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(LIMIT_S * SECONDS)
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        here = (f"{server.address}/", f"{server.address.replace('http', 'ws')}/", "data:", "blob:")
        self.context.on(
            "request",
            lambda sent: None if sent.url.startswith(here) else self.elsewhere.append(sent.url),
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(server.address, wait_until="domcontentloaded")
        self.box.wait_for()

    @property
    def box(self) -> Any:
        return self.page.get_by_role("textbox", name="Question")

    @property
    def note(self) -> Any:
        return self.page.locator("#smolvlm-note [role]")

    def upload(self, *files: Path) -> None:
        before = self.page.get_by_role("button", name="Remove file").count()
        self.page.set_input_files("input[type=file]", [str(file) for file in files])
        removable = self.page.get_by_role("button", name="Remove file")
        removable.nth(before + len(files) - 1).wait_for()

    def ask(self, question: str) -> None:
        self.box.click()
        self.page.keyboard.insert_text(question)
        self.page.keyboard.press("Enter")

    def wait_for_note(self, words: str) -> str:
        self.note.filter(has_text=words).wait_for()
        return self.note.inner_text()

    def said(self, side: int) -> list[str]:
        """Return one side's messages of text, questions and answers."""
        column = self.page.get_by_role("log").nth(side)
        return [text.strip() for text in column.locator(".message-content .md").all_inner_texts()]

    def keep(self, name: str) -> None:
        """Keep a screenshot where somebody wants to look."""
        if "DEMO_SHOTS" in os.environ:
            self.page.screenshot(path=Path(os.environ["DEMO_SHOTS"]) / f"{name}.png")


@pytest.fixture
def person(browser: Any, server: Server) -> Iterator[Person]:
    person = Person(browser, server)
    yield person
    person.context.close()
    assert person.elsewhere == []
    assert person.errors == []


def answers(run: Path, *files: Path) -> list[str]:
    """Return what `smolvlm chat` says to "What is it?", tuned and base."""
    tuned = open_chat(run, device="cpu", max_new_tokens=NEW_TOKENS)
    chats = [tuned, chat_with_base(tuned, run)]
    media = [tuned.check(file) for file in files]
    return [chat.ask("What is it?", media, on_text=lambda _: None).text for chat in chats]


def words(text: str) -> str:
    return " ".join(text.split())


def test_pictures_and_a_clip_are_asked_about(
    person: Person, run: Path, photos: dict[str, Path], clips: dict[str, Path]
) -> None:
    files = [photos["coffee"], clips["steady"], photos["rocket"]]
    person.upload(*files[:2])
    person.upload(files[2])
    person.keep("uploaded")
    person.ask("What is it?")
    assert person.wait_for_note("Base: ").startswith("Tuned: ")
    person.keep("answered")
    said = [person.said(side) for side in (0, 1)]
    expected = answers(run, *files)
    assert expected[0] != expected[1]
    assert [[words(text) for text in side] for side in said] == [
        ["What is it?", words(answer)] for answer in expected
    ]
    column = person.page.get_by_role("log").nth(0)
    assert column.locator("img[alt='coffee.png']").count() == 1
    assert column.locator("img[alt='rocket.jpg']").count() == 1
    assert column.locator("video").count() == 1
    assert person.box.input_value() == ""


def test_the_keyboard_alone_will_do(person: Person) -> None:
    page, focused = person.page, "document.activeElement.%s"
    page.wait_for_function("document.activeElement.tagName === 'TEXTAREA'")
    page.keyboard.type("What is")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("it?")
    assert person.box.input_value() == "What is\nit?"
    page.keyboard.press("Enter")
    person.wait_for_note("Base: ")
    assert person.said(0)[0].split() == ["What", "is", "it?"]
    assert page.evaluate(focused % "tagName") == "TEXTAREA", "the next question can be typed"
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        label = page.evaluate(focused % "ariaLabel") or page.evaluate(focused % "innerText")
        reached.append(label.strip())
    assert reached == ["Submit", "Stop", "New conversation"]
    page.keyboard.press("Enter")
    person.wait_for_note("A new conversation.")
    assert person.said(0) == []


def test_what_is_wrong_is_said_in_sentences(
    person: Person, photos: dict[str, Path], tmp_path: Path
) -> None:
    no_picture, large = tmp_path / "no.png", tmp_path / "large.png"
    no_picture.write_text("no picture")
    large.write_bytes(photos["coffee"].read_bytes() + bytes(1_100_000))
    person.page.keyboard.press("Enter")
    person.wait_for_note("Type a question.")
    person.upload(no_picture)
    person.ask("What is it?")
    note = person.wait_for_note("neither a picture nor a clip")
    assert note.startswith("no.png is ")
    assert "/" not in note
    assert person.note.get_attribute("role") == "alert"
    person.keep("refused")
    assert person.box.input_value() == "What is it?", "the question is put back"
    person.page.set_input_files("input[type=file]", str(large))
    person.page.get_by_text("exceed the maximum allowed size of 1").first.wait_for()
    person.keep("too-large")
    person.box.fill("")
    person.ask("What is it?")
    person.wait_for_note("Base: ")


def test_what_is_said_is_shown_and_not_obeyed(person: Person) -> None:
    person.ask(EVIL)
    person.wait_for_note("Base: ")
    assert person.said(0)[0] == EVIL
    assert person.page.locator("img[src*=invalid]").count() == 0


def long_question(run: Path) -> str:
    """Return a question whose answers have no end."""
    tuned = open_chat(run, device="cpu", max_new_tokens=NEW_TOKENS)
    base = chat_with_base(tuned, run)
    for question in map("Say {} things.".format, ("many", "some", "all", "more", "ten", "other")):
        base.restart()
        if base.ask(question, on_text=lambda _: None).num_tokens == NEW_TOKENS:
            return question
    raise AssertionError("the base always comes to an end")


def test_an_answer_is_stopped(browser: Any, run: Path, tmp_path: Path) -> None:
    question = long_question(run)
    with served(run, tmp_path, new_tokens=6000) as server:
        person = Person(browser, server)
        person.ask(question)
        person.wait_for_note("Answering.")
        person.page.get_by_role("button", name="Stop").click()
        person.wait_for_note("Stopped. The question is not part")
        assert person.said(0) == []
        assert person.box.input_value() == question
        person.box.fill("")
        person.ask(question)
        person.wait_for_note("Answering.")
        person.page.get_by_role("button", name="New conversation").click()
        person.page.wait_for_function("document.querySelectorAll('.message-content').length === 0")
        person.context.close()


def test_a_second_person_has_a_conversation_of_their_own(
    person: Person, browser: Any, server: Server
) -> None:
    other = Person(browser, server, color_scheme="dark")
    person.ask("What is it?")
    other.ask("Who are you?")
    person.wait_for_note("Base: ")
    other.wait_for_note("Base: ")
    other.keep("dark")
    assert len(person.said(0)) == len(other.said(0)) == 2
    assert other.said(0)[0] == "Who are you?"
    background = other.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in background[4:-1].split(",")) < 64, "dark where that is wished"
    other.context.close()
    assert other.elsewhere == []


def status_of(server: Server, path: str, **headers: str) -> int:
    request = urllib.request.Request(server.address + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_files_of_the_machine_and_other_hosts_are_refused(server: Server, run: Path) -> None:
    assert status_of(server, "/") == 200
    assert status_of(server, "/", Host="example.org") == 421
    assert status_of(server, f"/gradio_api/file={run / 'run.yaml'}") == 403
    assert status_of(server, f"/gradio_api/file={server.log}") == 403, "the folder it runs in"


def test_nothing_is_fetched_for_who_asks(server: Server) -> None:
    """No page sends this; gradio would fetch the address itself."""
    session, here = "a1b2c3", {"Content-Type": "application/json"}
    with urllib.request.urlopen(f"{server.address}/config", timeout=LIMIT_S) as answer:
        events = json.load(answer)["dependencies"]
    number = next(event["id"] for event in events if event["targets"][0][1] == "submit")
    file = {"path": "http://example.invalid/a.png", "meta": {"_type": "gradio.FileData"}}
    asked = {"text": "What is it?", "files": [file]}
    body = {"data": [None, asked], "fn_index": number, "session_hash": session}
    join = f"{server.address}/gradio_api/queue/join"
    request = urllib.request.Request(join, json.dumps(body).encode(), here)
    urllib.request.urlopen(request, timeout=LIMIT_S).close()
    said = f"{server.address}/gradio_api/queue/data?session_hash={session}"
    with urllib.request.urlopen(said, timeout=LIMIT_S) as answer:
        lines = [line.decode() for line in answer]
    assert "Files are uploaded here, not fetched." in "".join(lines)


def test_ctrl_c_ends_it_and_removes_what_was_uploaded(server: Server) -> None:
    kept = [path for path in server.temporary.rglob("*") if path.is_file()]
    assert kept, "the tests before this one uploaded files"
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(LIMIT_S) == 128 + signal.SIGINT
    assert "Traceback" not in server.log.read_text()
    assert [path for path in server.temporary.rglob("*") if path.is_file()] == []
