"""The page itself, by gradio: a column a model, a box for questions and files.

In: the models. Out: a server on this machine until it is closed. The one file that knows gradio
(6.31): it lays out what `talk.py` says, as plain text, so that no browser obeys what a model
answers. Nothing is loaded from elsewhere: the system's fonts, no analytics, no share link.
"""

import html
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from smolvlm.demo.guard import LOOPBACK, Guard
from smolvlm.demo.talk import Exchange, Sides, View
from smolvlm.errors import ConfigError

FILE_TYPES = ["image", "video"]
"""What a browser's dialog offers; what a file is, its content says."""
_FONTS = ["system-ui", "sans-serif"]
KEPT_S = 3600
"""How long the conversation of somebody who left stays in memory."""
MAX_ASKING = 16
"""People who may wait for an answer at the same time."""
_WAITING = "…"
_CSS = """
footer { display: none !important; }
#smolvlm-note { min-height: 1.5em; padding: 0 0.5em; }
#smolvlm-box { --block-info-text-color: var(--body-text-color); }
#smolvlm-box { --input-placeholder-color: var(--body-text-color-subdued); }
#smolvlm-note .error { color: var(--error-text-color, #b91c1c); font-weight: 600; }
#smolvlm-page .message-content .md { white-space: pre-wrap; }
#smolvlm-page .message img, #smolvlm-page .message video { max-height: 10em; width: auto; }
#smolvlm-page [aria-label="Share"], #smolvlm-page [aria-label="Clear"] { display: none; }
#smolvlm-page [title="Share"], #smolvlm-page [title="Clear"] { display: none; }
:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 1px; }
"""
_NAMES = """() => {
  const name = () => {
    for (const image of document.querySelectorAll('#smolvlm-page .message img')) {
      const file = decodeURIComponent((image.src || '').split('/').pop());
      if (!image.alt && file) image.alt = file;
      const button = image.closest('button');
      if (button && !button.ariaLabel) button.ariaLabel = 'Enlarge ' + file;
    }
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
}"""
"""Names pictures, and the buttons around them, for screen readers: gradio leaves both out."""
_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}


@contextmanager
def served_page(sides: Sides, *, title: str, host: str, port: int | None) -> Iterator[str]:
    """Serve the page until the block ends; gives its address.

    Args:
        sides: who answers.
        title: what the page is called: the checkpoint.
        host: the address to listen on.
        port: None takes a free one.

    Raises:
        ConfigError: gradio is not installed or not of a known version, or the port is taken.
    """
    with TemporaryDirectory(prefix="smolvlm-demo-") as folder:
        os.environ |= {**_SETTINGS, **without_proxy(host), "GRADIO_TEMP_DIR": folder}
        gradio = _gradio()
        page = _layout(gradio, sides, title)
        guard = {
            "uploads": Path(folder),
            "max_kept_bytes": sides.limits.max_kept_bytes,
            "only_loopback": host in LOOPBACK,
        }
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                show_error=False,
                max_file_size=sides.limits.max_file_bytes,
                state_session_capacity=64,
                app_kwargs={"middleware": [_Middleware(Guard, guard)]},
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                css=_CSS,
                js=_NAMES,
                theme=gradio.themes.Default(font=_FONTS, font_mono=["monospace"]),
            )
        except OSError as error:
            where = f"{host}:{port}" if port is not None else host
            fix = "choose another --port, or another --host"
            raise ConfigError(f"cannot listen there ({error})", where=where, fix=fix) from error
        try:
            yield address.rstrip("/")
        finally:
            page.close(verbose=False)


def without_proxy(host: str) -> dict[str, str]:
    """Return the variables by which gradio reaches its own server where a proxy is set."""
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    names = ",".join(filter(None, [others, "127.0.0.1", "localhost", host]))
    return {"no_proxy": names, "NO_PROXY": names}


def _gradio() -> Any:
    """Import gradio.

    Raises:
        ConfigError: it is missing, or too old.
    """
    try:
        gradio: Any = import_module("gradio")  # optional
    except ImportError as error:
        raise ConfigError(
            f"gradio cannot be imported ({error})",
            where="smolvlm demo",
            fix='pip install "smolvlm[demo]"',
        ) from error
    if int(gradio.__version__.partition(".")[0]) < 6:
        what, fix = f"gradio {gradio.__version__} is too old", 'pip install "gradio>=6"'
        raise ConfigError(what, where="smolvlm demo", fix=fix)
    return gradio


class _Middleware(tuple[Any, ...]):
    """A wrapper and its arguments in the form in which starlette unpacks them."""

    def __new__(cls, wrapper: Callable[..., Any], arguments: dict[str, Any]) -> "_Middleware":
        return super().__new__(cls, (wrapper, (), arguments))


def _layout(gradio: Any, sides: Sides, title: str) -> Any:
    """Return the page, not yet served."""
    limits = sides.limits
    names = ["Tuned", "Base"] if sides.base is not None else ["Answers"]
    heading = f"{title} - smolvlm"
    with gradio.Blocks(title=heading, analytics_enabled=False, fill_width=True) as page:
        gradio.Markdown(f"# {_plain(title)}", elem_id="smolvlm-title")
        with gradio.Row(elem_id="smolvlm-page"):
            columns = [_column(gradio, name) for name in names]
        note = gradio.HTML(note_html(""), elem_id="smolvlm-note")
        box = gradio.MultimodalTextbox(
            label="Question",
            elem_id="smolvlm-box",
            show_label=False,
            placeholder="Question (Enter sends, Shift+Enter begins a line)",
            info=f"Up to {limits.max_files} pictures or clips with a question, "
            f"{limits.max_file_mb} MB each",
            file_count="multiple",
            file_types=FILE_TYPES,
            sources=["upload"],
            autofocus=True,
            max_plain_text_length=100_000,
            html_attributes=gradio.InputHTMLAttributes(autocorrect="off", spellcheck=False),
        )
        _refuse_addresses(gradio, box)
        with gradio.Row():
            stop = gradio.Button("Stop", size="sm")
            anew = gradio.Button("New conversation", size="sm")
        person = gradio.State(_Person(sides), time_to_live=KEPT_S)
        outputs = [*columns, note, box]
        handlers = _Handlers(sides, gradio)
        private = {"api_visibility": "private", "show_progress": "hidden"}
        # Those who wait for the models wait in `talk.py`, where waiting can be stopped too.
        box.submit(handlers.ask, [person, box], outputs, concurrency_limit=MAX_ASKING, **private)
        stop.click(handlers.stop, [person], None, queue=False, **private)
        anew.click(handlers.restart, [person], outputs, concurrency_limit=MAX_ASKING, **private)
    return page.queue(max_size=2 * MAX_ASKING)


def _column(gradio: Any, name: str) -> Any:
    return gradio.Chatbot(
        label=name,
        height="60vh",
        render_markdown=False,
        latex_delimiters=[],
        buttons=[],
        feedback_options=None,
        allow_tags=True,
        layout="bubble",
    )


def _refuse_addresses(gradio: Any, box: Any) -> None:
    """Let a box take files that were uploaded alone; gradio 6.31 fetches addresses that stand in
    place of one, which the page never sends."""
    move = box.async_move_resource_to_block_cache

    async def move_file(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gradio.Error("Files are uploaded here, not fetched.", print_exception=False)
        return await move(path)

    box.async_move_resource_to_block_cache = move_file


class _Person:
    """Whose conversation it is: gradio copies its first value for everybody who opens the page."""

    def __init__(self, sides: Sides) -> None:
        self._sides = sides
        self.talk = sides.talk()

    def __deepcopy__(self, memo: object) -> "_Person":
        return _Person(self._sides)


class _Handlers:
    """What gradio calls: a view in, its components' values out."""

    def __init__(self, sides: Sides, gradio: Any) -> None:
        self._sides = sides
        self._gradio = gradio

    def ask(self, person: _Person, asked: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Answer a question; gradio closes the iterator where nobody listens any more."""
        files = [Path(path) for path in asked["files"]]
        with closing(person.talk.ask(asked["text"], files)) as views:
            for view in views:
                yield self._values(view)

    def stop(self, person: _Person) -> None:
        """Cut an answer short; whoever shows it then shows what is kept."""
        person.talk.stop()

    def restart(self, person: _Person) -> tuple[Any, ...]:
        """Begin anew."""
        return self._values(person.talk.restart())

    def _values(self, view: View) -> tuple[Any, ...]:
        columns = [messages(view.exchanges, side) for side, _ in enumerate(self._sides)]
        text = view.asked_again
        box = self._gradio.skip() if text is None else {"text": text, "files": []}
        return *columns, note_html(view.note, is_error=view.is_error), box


def messages(exchanges: Sequence[Exchange], side: int) -> list[dict[str, Any]]:
    """Return a conversation as gradio's messages: files, the question, one side's answer."""
    said: list[dict[str, Any]] = []
    for exchange in exchanges:
        for path in exchange.files:
            content = {"path": str(path), "alt_text": path.name}
            said.append({"role": "user", "content": content})
        # gradio 6.31 hands plain text to the browser as HTML, also with `render_markdown=False`
        said.append({"role": "user", "content": html.escape(exchange.question)})
        answer = html.escape(exchange.answers[side]) or _WAITING
        said.append({"role": "assistant", "content": answer})
    return said


def note_html(note: str, *, is_error: bool = False) -> str:
    """Return a note as it stands on the page, in the words of screen readers too."""
    role, style = ("alert", "error") if is_error else ("status", "")
    return f'<div role="{role}" aria-live="polite" class="{style}">{html.escape(note)}</div>'


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return "".join(f"&#{ord(letter)};" if not letter.isalnum() else letter for letter in text)
