"""New tokens packed = alone: ids are the stock processor's, loss and gradients peft's own trainable
tokens'.

Both sides hold the same rows: ours put in place, theirs loaded by `PeftModel.from_pretrained` onto
the stock base from what ours saved. The stock processor reads the files that a run leaves behind.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoProcessor

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.adapters import TrainedBeside, attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import load_processor
from smolvlm.checkpoints.new_tokens import add_rows, placement_of
from smolvlm.checkpoints.peft_layers import PREFIX
from smolvlm.checkpoints.processor_files import save_processor
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.new_tokens import NewToken
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.inspect.verify import GRADIENT_TOLERANCE, LOSS_TOLERANCE, gradient_errors
from smolvlm.model.towers import is_adapter, is_token_rows
from tests.media_settings import media_settings
from tests.parity.test_packed_equals_alone import MIXED, texts

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

TOKENS = [NewToken(token="<box>"), NewToken(token="</box>", description="end of a box")]


def with_new_tokens(samples: Any) -> Any:
    """Return the samples with a new token in every text."""

    def turn(own: Any) -> Any:
        blocks = (
            f"<box>{block}</box> and" if isinstance(block, str) else block for block in own.blocks
        )
        return replace(own, blocks=tuple(blocks))

    def conversation(own: Any) -> Any:
        return replace(own, turns=tuple(map(turn, own.turns)))

    return [tuple(map(conversation, sample)) for sample in samples]


@pytest.mark.parametrize("has_adapter", [True, False])
def test_packed_equals_pefts_own_trainable_tokens_alone(
    bench: Any, checkpoint_folders: dict[ModelType, Path], tmp_path: Path, has_adapter: bool
) -> None:
    model_type = bench.ours.config.model_type
    base = checkpoint_folders[model_type]
    plain = load_processor(str(base))
    placement = placement_of(plain, TOKENS)
    save_processor(str(base), tmp_path, media=media_settings(), new_tokens=TOKENS)
    tokenizer: Any = AutoProcessor.from_pretrained(tmp_path).tokenizer
    ours, stock = copy.deepcopy(bench.ours), copy.deepcopy(bench.stock)
    add_rows(ours, placement)
    kinds: Any = {"language_model": AdapterConfig(r=2)} if has_adapter else {}
    ids = list(placement.ids.values())
    attached = attach_adapters(ours, kinds, base="", seed=0, beside=TrainedBeside(token_rows=ids))
    freeze(ours, LearningRates(adapter=dict.fromkeys(kinds, 1.0), token_rows=1.0))
    attached.save(ours, tmp_path)
    theirs = PeftModel.from_pretrained(stock, str(tmp_path), is_trainable=True)
    processor = copy.copy(bench.processor)
    processor.tokenizer = tokenizer
    text = read_prompt_settings(load_processor(str(base), new_tokens=TOKENS)).text
    prompts = {cut: replace(own, text=text) for cut, own in bench.prompts.items()}
    own = replace(
        bench, ours=ours.eval(), stock=theirs.eval(), processor=processor, prompts=prompts
    )
    samples = with_new_tokens(MIXED) + with_new_tokens(texts())
    packed, alone = own.packed(samples), own.alone(samples)
    assert abs(packed.loss - alone.loss) <= LOSS_TOLERANCE * max(1.0, alone.loss)
    trained = {name: value for name, value in packed.gradients.items() if is_adapter(name)}
    others = {
        name.removeprefix(PREFIX): value
        for name, value in alone.gradients.items()
        if is_adapter(name)
    }
    assert trained.keys() == others.keys()
    rows = [value for name, value in trained.items() if is_token_rows(name)]
    assert len(rows) == 2
    assert all((value.abs().amax(dim=1) > 0).all() for value in rows), (
        "every new row learns in both matrices"
    )
    errors = gradient_errors(trained, others)
    assert max(errors.values()) <= GRADIENT_TOLERANCE, errors


@settings(deadline=None, max_examples=30)
@given(
    pieces=st.lists(
        st.sampled_from(("<box>", "</box>", " ", "\n", "a", "  2", "½", "x=3.14", "don't")),
        max_size=9,
    )
)
def test_ids_are_the_stock_processors(stock_and_ours: Any, pieces: list[str]) -> None:
    stock, ours = stock_and_ours
    text = "".join(pieces)
    assert list(ours(text)[0]) == stock(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def stock_and_ours(
    checkpoint_folders: dict[ModelType, Path], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    base, folder = str(checkpoint_folders["smolvlm"]), tmp_path_factory.mktemp("saved")
    save_processor(base, folder, media=media_settings(), new_tokens=TOKENS)
    stock: Any = AutoProcessor.from_pretrained(folder)
    return stock.tokenizer, read_prompt_settings(load_processor(base, new_tokens=TOKENS)).text
