"""LoRA runs over other families' language models, in full precision and over quantised layers:
verified, trained, saved, and read back by stock transformers with peft."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

import smolvlm.checkpoints.base
import smolvlm.checkpoints.load
from smolvlm import api
from smolvlm.build.build import write_build
from smolvlm.build.build_plan import BuildRecipe, plan_build
from smolvlm.config.schema import RunConfig
from tests.language_families import LANGUAGE_CONFIGS
from tests.packs import verified_pack

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

FAMILIES = ("qwen3", "smollm3")
"""Those that are quantised, and trained whole beside an adapter."""
LORA = {"adapters": {"language": {"type": "lora", "r": 4}, "connector": "lora"}}
ONE_BESIDE_WHOLE = {"adapters": {"connector": {"type": "lora", "r": 4}}}
STOCK_QUANTIZATION: dict[int, dict[str, Any]] = {
    8: {"load_in_8bit": True},
    4: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}


@pytest.fixture(scope="module", autouse=True)
def processors_loaded_once() -> Iterator[None]:
    """Every run loads the same processor several times: here each folder's is loaded once."""
    load_once = functools.cache(smolvlm.checkpoints.load.load_processor)
    with pytest.MonkeyPatch.context() as patch:
        for module in (smolvlm.checkpoints.load, smolvlm.checkpoints.base):
            patch.setattr(module, "load_processor", load_once)
        yield


@pytest.fixture(scope="module")
def built(
    families: dict[str, Path],
    siglip_tower: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A tiny model over each family's language model; not to be written to."""
    folders: dict[str, Path] = {}
    for family in LANGUAGE_CONFIGS:
        recipe = BuildRecipe(language=str(families[family]), vision=str(siglip_tower))
        folders[family] = tmp_path_factory.mktemp("built") / family
        write_build(plan_build(recipe), folders[family])
    return folders


@pytest.fixture
def make_run(
    built: dict[str, Path], photos: dict[str, Path], tmp_path: Path
) -> Callable[..., RunConfig]:
    """Makes the settings of a run over a family's model, of two steps."""
    coffee = str(photos["coffee"])
    rows = [
        {"question": "<image>What is it?", "answer": "A cup.", "image": coffee},
        {"question": "<image>And this?", "answer": "The same.", "image": coffee},
        {"question": "Hello", "answer": "Hi."},
    ]

    def make(family: str, sections: dict[str, Any]) -> RunConfig:
        train = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 2,
            "packs_per_step": 1,
            "language_model_lr": 1e-2,
            "connector_lr": 1e-2,
            "use_cpu": True,
        }
        settings = {
            "model": {"path": str(built[family])},
            "data": {"image_splitting": False, "allow_outside_root": True},
            "train": train,
        }
        return api.load_config(settings | sections, rows=rows)

    return make


def logits_of(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def check_read_back(
    config: RunConfig, folder: Path, *, trained: Any, quantization: dict[str, Any] | None = None
) -> None:
    """Compare the logits of a trained model with those of what stock transformers and peft read."""
    how = (
        {} if quantization is None else {"quantization_config": BitsAndBytesConfig(**quantization)}
    )
    stock = AutoModelForImageTextToText.from_pretrained(
        config.model.path, dtype=torch.float32, **how
    )
    ids = torch.randint(0, 280, (2, 24), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    before = logits_of(stock.train(), ids, mask)
    read = PeftModel.from_pretrained(stock, str(folder), is_trainable=True)
    # In training mode bitsandbytes multiplies with the weights brought back to float32.
    read = read.eval() if quantization is None else read.train()
    found = logits_of(read, ids, mask)
    ours = logits_of(trained.eval(), ids, mask)
    torch.testing.assert_close(found, ours, rtol=1e-5, atol=1e-5)
    assert (found - before).abs().max() > 1e-2, "the adapter does something"


@pytest.mark.parametrize("family", LANGUAGE_CONFIGS)
def test_lora_trains_and_stock_peft_reads_what_is_saved(
    make_run: Callable[..., RunConfig], family: str, tmp_path: Path
) -> None:
    config = make_run(family, LORA)
    verification = verified_pack(config).verification
    assert verification.holds, verification
    trained = api.train(config)
    check_read_back(config, tmp_path / "run", trained=trained.checkpoint.model)


@pytest.mark.parametrize("bits", STOCK_QUANTIZATION)
@pytest.mark.parametrize("family", FAMILIES)
def test_lora_over_a_quantised_language_model(
    make_run: Callable[..., RunConfig], family: str, bits: int, tmp_path: Path
) -> None:
    config = make_run(family, LORA | {"quantization": {"bits": bits}})
    verification = verified_pack(config).verification
    assert verification.holds, verification
    trained = api.train(config)
    left_out = ["lm_head", "model.vision_model", "model.connector"]
    stock = STOCK_QUANTIZATION[bits] | {"llm_int8_skip_modules": left_out}
    check_read_back(config, tmp_path / "run", trained=trained.checkpoint.model, quantization=stock)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_beside_a_language_model_that_trains_whole(
    make_run: Callable[..., RunConfig], family: str, tmp_path: Path
) -> None:
    config = make_run(family, ONE_BESIDE_WHOLE)
    verification = verified_pack(config).verification
    assert verification.holds, verification
    trained = api.train(config)
    check_read_back(config, tmp_path / "run", trained=trained.checkpoint.model)
