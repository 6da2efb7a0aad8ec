"""docs/from_other_trainers.md: the names are those of the installed trainers, what is written in
their place is ours, and whoever keeps a foreign name is told."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator

import pytest

from smolvlm.config.load import config_from
from smolvlm.config.other_trainers import OTHER_TRAINERS
from smolvlm.config.reference import all_settings
from smolvlm.config.training_arguments import argument_types
from smolvlm.errors import ConfigError
from tests.docs.conftest import ROOT, blocks_of

PAGE = ROOT / "docs" / "from_other_trainers.md"
_NAME = re.compile(r"`([A-Za-z_0-9]+)`")
_SETTING = re.compile(r"`((?:model|data|train|eval|adapters|quantization)\.[a-z_.]+)`")
LATER = ("loss_weights", "formatting_func")
"""Names that have no near setting; a run file that holds them is refused all the same."""
OBJECTS = ("model", "processing_class", "data_collator", "compute_metrics", "callbacks")
"""Arguments of a trainer that no run file could hold."""


def rows_of(head: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the names and our settings of each row of the tables whose head begins so."""
    text = PAGE.read_text(encoding="utf-8")
    for table in re.findall(rf"^\| {re.escape(head)} \|.*\n\|---.*\n((?:\|.*\n)+)", text, re.M):
        for row in table.splitlines():
            theirs, ours, *_ = row.strip("|").split(" | ")
            yield _NAME.findall(theirs), _SETTING.findall(ours)


def names_of(head: str) -> list[str]:
    return [name for names, _ in rows_of(head) for name in names]


HEADS = ("TRL", "`LoraConfig`", "`DPOConfig`", "LLaMA-Factory")


@pytest.mark.filterwarnings("ignore")  # of the libraries, as they are imported
def test_names_of_trl_and_peft_are_theirs() -> None:
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    def known(config: type, trainer: type | None = None) -> set[str]:
        fields = {field.name for field in dataclasses.fields(config)}
        return fields | (set(inspect.signature(trainer).parameters) if trainer else set())

    assert set(names_of("TRL")) - known(SFTConfig, SFTTrainer) == set()
    assert set(names_of("`DPOConfig`")) - known(DPOConfig, DPOTrainer) == set()
    assert set(names_of("`LoraConfig`")) - known(LoraConfig) == set()


@pytest.mark.filterwarnings("ignore")
def test_the_script_calls_what_takes_its_arguments() -> None:
    import peft
    import trl

    called = 0
    for block in blocks_of(PAGE, "python"):
        for node in ast.walk(ast.parse(block)):
            callee = (
                getattr(trl, ast.unparse(node.func), None)
                or getattr(peft, ast.unparse(node.func), None)
                if isinstance(node, ast.Call)
                else None
            )
            if callee is not None:
                names = {keyword.arg for keyword in node.keywords}
                assert names <= set(inspect.signature(callee).parameters), ast.unparse(node)
                called += 1
    assert called == 3


@pytest.mark.filterwarnings("ignore")
def test_what_is_said_of_trls_defaults_holds() -> None:
    from trl import DPOConfig, SFTConfig

    sft, dpo = (
        {field.name: field.default for field in dataclasses.fields(one)}
        for one in (SFTConfig, DPOConfig)
    )
    assert sft["max_length"] == 1024
    assert sft["gradient_checkpointing"] is True
    assert sft["assistant_only_loss"] is False
    assert sft["completion_only_loss"] is None
    assert dpo["learning_rate"] == 1e-6


@pytest.mark.parametrize("head", HEADS)
def test_what_is_written_in_their_place_is_ours(head: str) -> None:
    keys = {facts.key for facts in all_settings()}
    keys |= {key.replace("language", tower) for key in keys for tower in ("connector", "vision")}
    ours = {setting for _, settings in rows_of(head) for setting in settings}
    assert ours
    assert {key for key in ours - keys if key.removeprefix("train.") not in argument_types()} == (
        set()
    )


@pytest.mark.parametrize("head", HEADS)
def test_a_foreign_name_in_a_run_file_is_answered(head: str) -> None:
    """With what to write instead, unless it is a name of ours too."""
    for name in names_of(head):
        if name in OBJECTS or name in argument_types() or name in LATER or len(name) == 1:
            continue
        content = {
            "model": {"path": "a/b"},
            "data": {"mixture": []},
            "train": {"output_dir": ".", name: "x"},
        }
        if name in {facts.key.removeprefix("train.") for facts in all_settings()}:
            continue
        with pytest.raises(ConfigError, match=rf"train\.{name}\b") as error:
            config_from(content, (), where="run")
        hint = OTHER_TRAINERS.get(name, "set ")
        assert hint in str(error.value), str(error.value)
