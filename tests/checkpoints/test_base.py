"""A run reads a checkpoint's small files once, and all that it asks of them comes from there."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smolvlm import api
from smolvlm.checkpoints import foreign_config, load
from smolvlm.checkpoints.base import read_base
from smolvlm.checkpoints.load import load_checkpoint, load_processor
from smolvlm.config.new_tokens import NewToken
from smolvlm.config.schema import DataConfig
from smolvlm.errors import ConfigError
from tests.processors import loaded_anew


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often this program reads each kind of file; transformers' own AutoProcessor asks for the
    config once more."""
    counts: Counter[str] = Counter()
    loaded_anew(monkeypatch)

    def count(module: Any, name: str, method: str) -> None:
        stock = getattr(module, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return getattr(stock, method)(*args, **kwargs)

        monkeypatch.setattr(module, name, SimpleNamespace(**{method: counting}))

    count(foreign_config, "AutoConfig", "from_pretrained")
    count(load, "AutoProcessor", "from_pretrained")
    count(load, "Tokenizer", "from_file")
    return counts


ONCE = {"AutoConfig": 1, "AutoProcessor": 1, "Tokenizer": 1}


def test_a_run_of_one_step_reads_each_once(
    folder: Path, tmp_path: Path, counted: Counter[str]
) -> None:
    settings = {
        "model": {"path": str(folder)},
        "data": {},
        "train": {
            "output_dir": str(tmp_path / "out"),
            "max_steps": 1,
            "use_cpu": True,
            "packs_per_step": 1,
        },
        "eval": {"max_new_tokens": 2},
    }
    rows = [{"question": "One and one?", "answer": "two"}]
    api.train(api.load_config(settings, rows=rows, eval_rows=rows))
    assert counted == ONCE


def test_an_inspection_reads_each_once(folder: Path, tmp_path: Path, counted: Counter[str]) -> None:
    settings = {
        "model": {"path": str(folder)},
        "data": {},
        "train": {"output_dir": str(tmp_path / "out")},
    }
    config = api.load_config(settings, rows=[{"question": "One and one?", "answer": "two"}])
    str(api.inspect(config))
    assert counted == ONCE


def test_it_loads_what_the_checkpoint_is(folder: Path) -> None:
    base = read_base(str(folder))
    ours, theirs = base.load(), load_checkpoint(str(folder))
    for (name, value), (other, expected) in zip(
        ours.model.state_dict().items(), theirs.model.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(value, expected)
    assert ours.model.config is not base.config, "a model may change its own"
    assert ours.path == theirs.path


def test_new_tokens_stand_in_its_prompt_and_not_in_what_was_read(folder: Path) -> None:
    base = read_base(str(folder), new_tokens=[NewToken(token="<box>")])
    before = base.processor.tokenizer.backend_tokenizer.to_str()
    (number,) = base.placement.ids.values()
    prompt = base.prompt(DataConfig(mixture=[]))
    assert prompt.text("a<box>b")[0].count(number) == 1
    assert base.processor.tokenizer.backend_tokenizer.to_str() == before
    assert base.load().processor.tokenizer.convert_tokens_to_ids("<box>") == number


def test_a_known_checkpoint_is_not_looked_at_again(folder: Path, counted: Counter[str]) -> None:
    load_processor(str(folder), is_known=True)
    assert counted["AutoConfig"] == 0
    load_processor(str(folder))
    assert counted["AutoConfig"] == 1


def test_what_is_no_checkpoint_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json here"):
        read_base(str(tmp_path))
