"""A conversation says, turn by turn, what `Generator` says to the same turns; the base beside."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from smolvlm import api
from smolvlm.build.processor import ModelType
from smolvlm.errors import ConfigError, SampleError
from smolvlm.generate.answers import GenerationSettings, Generator
from smolvlm.model.modeling_smolvlm import PackedTraining
from smolvlm.records import Conversation, ImageRef, Turn
from smolvlm.runs.answering import LoadedModel, load_model
from smolvlm.runs.chat import Chat, chat_with_base, open_chat

NEW_TOKENS = 6


@pytest.fixture(scope="module")
def model(checkpoint_folders: dict[ModelType, Path]) -> LoadedModel:
    return load_model(checkpoint_folders["smolvlm"], device="cpu")


@pytest.fixture
def chat(model: LoadedModel) -> Chat:
    return Chat(model, system="Be brief.", max_new_tokens=NEW_TOKENS)


def answer(model: LoadedModel, *turns: Turn) -> str:
    row = Conversation(
        turns=(*turns, Turn(role="assistant", blocks=("",))), where="row", source="row"
    )
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS, batch_size=1)
    return Generator(model.checkpoint.model, model.prompt, settings).answers([row])[0]


def test_each_turn_is_what_the_whole_conversation_is_answered(
    model: LoadedModel, chat: Chat, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = list[int]()
    tower_features = PackedTraining.tower_features

    def counted(self: Any, shown: torch.Tensor) -> Any:
        tiles.append(len(shown))
        return tower_features(self, shown)

    coffee = ImageRef(path=photos["coffee"])
    turns = (
        Turn(role="system", blocks=("Be brief.",)),
        Turn(role="user", blocks=(coffee, "What is it?")),
    )
    pieces = list[str]()
    monkeypatch.setattr(PackedTraining, "tower_features", counted)
    first = chat.ask("What is it?", [chat.check(photos["coffee"])], on_text=pieces.append)
    second = chat.ask("And what else?", on_text=pieces.append)
    monkeypatch.undo()
    assert first.text == answer(model, *turns)
    turns += (
        Turn(role="assistant", blocks=(first.text,)),
        Turn(role="user", blocks=("And what else?",)),
    )
    assert second.text == answer(model, *turns)
    assert "".join(pieces) == first.text + second.text
    assert first.text != second.text
    assert 1 <= first.num_tokens <= NEW_TOKENS
    assert 0 < first.first_s <= first.seconds
    assert len(tiles) == 1, "the picture's features were computed once"
    assert len(chat.turns) == 5
    chat.restart()
    assert [turn.role for turn in chat.turns] == ["system"]


def test_what_fails_leaves_the_conversation_as_it_was(chat: Chat, tmp_path: Path) -> None:
    chat.ask("One and one?", on_text=lambda _: None)
    before = chat.turns
    (tmp_path / "no.png").write_text("this is no picture")
    with pytest.raises(SampleError, match=r"no\.png"):
        chat.check(tmp_path / "no.png")
    with pytest.raises(KeyboardInterrupt):
        chat.ask("Two and two?", on_text=interrupt)
    assert chat.turns == before


def test_fixes_speak_of_what_is_shown_and_not_of_rows(chat: Chat, tmp_path: Path) -> None:
    missing = r"does not exist\n  fix: correct its name; a relative one starts from"
    with pytest.raises(SampleError, match=missing):
        chat.check(tmp_path / "gone.png")
    with pytest.raises(SampleError, match=missing):
        chat.check(tmp_path / "gone.mp4")
    path = tmp_path / "shown.png"
    Image.new("RGB", (8, 8)).save(path)
    shown = chat.check(path)
    path.unlink()
    with pytest.raises(SampleError, match=missing):
        chat.ask("Where is it?", [shown], on_text=lambda _: None)
    with pytest.raises(SampleError, match=missing):
        chat.model.ask("Where is it?", path)


def interrupt(_: str) -> None:
    raise KeyboardInterrupt


def test_a_conversation_that_is_too_long_is_refused(model: LoadedModel) -> None:
    narrow = replace(model, prompt=replace(model.prompt, context_tokens=20))
    chat = Chat(narrow, max_new_tokens=NEW_TOKENS)
    assert chat.ask("1 + 1?", on_text=lambda _: None).num_tokens
    with pytest.raises(ConfigError, match=r"tokens, and the model sees 20\n.*/new"):
        chat.ask("And what is that plus one, and then again plus one?", on_text=lambda _: None)


@pytest.fixture(scope="module", params=["full", "lora"])
def run(
    request: pytest.FixtureRequest,
    checkpoint_folders: dict[ModelType, Path],
    photos: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The output of a run that changed a model much."""
    out = tmp_path_factory.mktemp("chat") / "out"
    adapters = {"language": {"type": "lora", "r": 4}} if request.param == "lora" else {}
    api.train(
        api.load_config(
            {
                "model": {"path": str(checkpoint_folders["smolvlm"])},
                "data": {"longest_edge_px": 64, "max_tokens_per_pack": 256},
                "train": {
                    "output_dir": str(out),
                    "language_model_lr": 0.05,
                    "packs_per_step": 1,
                    "max_steps": 4,
                    "use_cpu": True,
                    "report_to": "none",
                },
                "adapters": adapters,
            },
            rows=[{"question": "What is it?", "answer": "cup", "image": str(photos["coffee"])}],
        )
    )
    return out


def test_the_base_is_what_the_run_began_from(
    run: Path, checkpoint_folders: dict[ModelType, Path], photos: dict[str, Path]
) -> None:
    tuned = open_chat(run, device="cpu", max_new_tokens=NEW_TOKENS)
    base = chat_with_base(tuned, run)
    plain = open_chat(checkpoint_folders["smolvlm"], device="cpu", max_new_tokens=NEW_TOKENS)
    said = [
        chat.ask("What is it?", on_text=lambda _: None).text for chat in (tuned, base, plain, tuned)
    ]
    assert said[1] == said[2]
    assert said[0] != said[1]
    shown = [
        chat.ask("See?", [chat.check(photos["coffee"])], on_text=lambda _: None).text
        for chat in (tuned, base)
    ]
    assert shown[0] != shown[1]


def test_a_bare_checkpoint_has_no_base_that_is_known(
    checkpoint_folders: dict[ModelType, Path], chat: Chat
) -> None:
    with pytest.raises(ConfigError, match=r"no run\.yaml here"):
        chat_with_base(chat, checkpoint_folders["smolvlm"])
