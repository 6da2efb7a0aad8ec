"""The run file: the smallest one, defaults, every kind of mistake in one error, and writing it
back."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.config.method import SftMethod
from smolvlm.config.schema import DataConfig, EvalConfig, ModelConfig, RunConfig, TrainConfig
from smolvlm.errors import ConfigError

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=10)
RATES = st.floats(min_value=1e-9, max_value=1)


def errors_of(load: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    return str(caught.value)


def test_the_smallest_run_file_takes_every_default(run_dir: Path, load: Any) -> None:
    assert load() == RunConfig(
        model=ModelConfig(path="someone/some-model"),
        data=DataConfig(mixture=run_dir / "mix.yaml", base_dir=run_dir),
        train=TrainConfig(output_dir=Path.cwd() / "out"),
        eval=EvalConfig(),
    )
    config = load()
    assert (
        config.model.dtype,
        config.data.max_tokens_per_pack,
        config.data.max_tiles_per_pack,
    ) == (
        "float32",
        4096,
        64,
    )
    assert (config.data.share_media, config.data.max_branches, config.data.vision_cache) == (
        True,
        16,
        True,
    )
    assert (
        config.data.image_splitting,
        config.data.longest_edge_px,
        config.data.vision_cache_dir,
    ) == (
        None,
        None,
        None,
    )
    assert (
        config.data.loss_weighting,
        config.data.on_bad_sample,
        config.data.max_bad_fraction,
    ) == (
        "token",
        "error",
        0.01,
    )
    assert (
        config.train.language_model_lr,
        config.train.connector_lr,
        config.train.vision_tower_lr,
    ) == (2e-5, 1e-4, 0)
    assert (config.train.packs_per_step, config.train.method, config.train.log_sample_ids) == (
        4,
        SftMethod(),
        False,
    )
    assert (config.train.resume_from_checkpoint, config.train.arguments) == ("auto", {})
    assert (config.eval.max_new_tokens, config.eval.batch_size, config.eval.max_rows) == (
        32,
        32,
        None,
    )
    assert (config.eval.at_start, config.eval.at_end) == (True, True)


def test_settings_of_training_arguments_are_gathered(load: Any) -> None:
    config = load("train.warmup_steps=3e-2", "train.bf16=true", "train.save_strategy=no")
    assert config.train.arguments == {"warmup_steps": 0.03, "bf16": True, "save_strategy": "no"}


def test_a_mixture_may_be_written_inline(load: Any) -> None:
    assert load("data.mixture=[{json_path: a.json}]").data.mixture == [{"json_path": "a.json"}]
    assert load("data.mixture={group: [{json_path: a.json}]}").data.mixture == {
        "group": [{"json_path": "a.json"}]
    }


def test_a_config_cannot_be_changed(load: Any) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().train.packs_per_step = 8


def test_everything_wrong_is_said_at_once(run_dir: Path) -> None:
    (run_dir / "bad.yaml").write_text(
        "modle: {path: x}\n"
        "data:\n"
        "  mixture: gone.yaml\n"
        "  max_token_per_pack: 10\n"
        "  share_media: yes\n"
        "  max_tiles_per_pack: 0\n"
        "  loss_weighting: tokens\n"
        "  learning_rate: 1\n"
        "  bf16: true\n"
        "train:\n"
        "  learning_rate: 1e-4\n"
        "  warmup_ratio: 0.03\n"
        "  max_tokens_per_pack: 4096\n"
        "  packs_per_step: '4'\n"
        "  vision_tower_lr: -1\n"
        "  weight_decay: no\n"
        "  hub_tokens: secret\n"
        "  arguments: {}\n"
        "eval: 3\n"
        "quantization: {bits: 3}\n"
        "share_media: true\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_run_config(run_dir / "bad.yaml", ["train.method=ppo", "nonsense"])
    lines = str(caught.value).split("\n  - ")
    assert lines[0] == f"{run_dir / 'bad.yaml'}: 23 problems:"
    expected = [
        "override `nonsense`: an override is written section.key=value",
        "modle: no such section; did you mean `model`?",
        "data.max_token_per_pack = 10: no such setting; did you mean data.max_tokens_per_pack?",
        "data.learning_rate = 1: no such setting; each part has its own rate; set "
        "train.language_model_lr, ",
        "data.bf16 = true: no such setting; did you mean train.bf16?",
        "train.learning_rate = 0.0001: cannot take effect; each part has its own rate; set "
        "train.language_model_lr, ",
        "train.warmup_ratio = 0.03: cannot take effect; it is gone from transformers; set "
        "train.warmup_steps below 1",
        "train.max_tokens_per_pack = 4096: no such setting; did you mean data.max_tokens_per_pack?",
        "train.hub_tokens = (not shown): no such setting; ",
        "train.arguments = {}: no such setting; ",
        "eval = 3: a section is a mapping of settings; write one `key: value` a line",
        "share_media = true: no such section; write it as data.share_media",
        f"data.mixture = 'gone.yaml': no such file: {run_dir / 'gone.yaml'}; relative paths start "
        f"from {run_dir}",
        "train.weight_decay = 'no': must be a number",
        "model.path: is required, and missing; write it beneath `model:`",
        "data.max_tiles_per_pack = 0: must be at least 1",
        "data.share_media = 'yes': must be true or false",
        "data.loss_weighting = 'tokens': must be 'token', 'sample' or 'sqrt'; did you mean "
        "`token`?",
        "train.output_dir: is required, and missing; write it beneath `train:`",
        "train.vision_tower_lr = -1: must be at least 0",
        "train.packs_per_step = '4': must be a whole number",
        "train.method = 'ppo' (on the command line): must be 'sft' or 'dpo'",
        "quantization.bits = 3: must be 8 or 4",
    ]
    assert len(lines) - 1 == len(expected)
    for line, start in zip(lines[1:], expected, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.output_dir=", "train.output_dir = null (on the command line): must be a path"),
        ("train.output_dir=''", "train.output_dir = '' (on the command line): must be a path"),
        (
            "data.mixture=3",
            "data.mixture = 3 (on the command line): must be a file, or the list or mapping of "
            "sources",
        ),
        ("data.base_dir=3", "data.base_dir = 3 (on the command line): must be a path"),
        ("model.path=''", "model.path = '' (on the command line): must not be empty"),
        ("model.path=3", "model.path = 3 (on the command line): must be text"),
        ("train.connector_lr=.inf", "train.connector_lr = inf (on the command line): must be a"),
        ("train.connector_lr=.nan", "train.connector_lr = nan (on the command line): must be a"),
        ("train.connector_lr=2", "must be at most 1"),
        (
            "train.packs_per_step=true",
            "train.packs_per_step = true (on the command line): must be a whole number",
        ),
        ("train.packs_per_step=1.5", "must be a whole number"),
        ("train.resume_from_checkpoint=true", "must be `auto`, `false` or a checkpoint folder"),
        ("train.resume_from_checkpoint=0", "must be `auto`, `false` or a checkpoint folder"),
        ("data.fps=0", "data.fps = 0 (on the command line): must be above 0"),
        ("data.max_image_pixels=0", "data.max_image_pixels = 0 (on the command line): must be a"),
        ("data.max_image_pixels=1.5", "data.max_image_pixels = 1.5 (on the command line): must"),
        ("data.max_frames=0", "data.max_frames = 0 (on the command line): must be a"),
        (
            "data.average_frames=3",
            "data.average_frames = 3 (on the command line): must be 1, 2, 4 or 8",
        ),
        (
            "data.average_frames=0",
            "data.average_frames = 0 (on the command line): must be 1, 2, 4 or 8",
        ),
        (
            "data.average_frames=true",
            "data.average_frames = true (on the command line): must be 1, 2, 4 or 8",
        ),
        (
            "data.sampling=all",
            "data.sampling = 'all' (on the command line): must be 'fps' or 'uniform'",
        ),
        (
            "train.beta=0.2",
            "train.beta = 0.2 (on the command line): has no effect with train.method = sft",
        ),
        (
            "quantization.bits=true",
            "quantization.bits = true (on the command line): must be 8 or 4",
        ),
        (
            "train.hub_token=abc",
            "train.hub_token = (not shown) (on the command line): cannot take effect; it would be "
            "written",
        ),
        (
            "train.gradient_checkpointing=true",
            "cannot take effect; renamed; set train.activation_checkpointing",
        ),
        (
            "train.per_device_train_batch_size=8",
            "one pack is one batch; set data.max_tokens_per_pack, and train.packs",
        ),
        ("train.gradient_accumulation_steps=2", "set train.packs_per_step"),
        ("modle.path=x", "modle: no such section; did you mean `model`?"),
        (
            "data.colour=x",
            "no such setting; the settings of `data` are mixture, eval_mixture, base_dir, ",
        ),
        (
            "train.gradient_norm=1",
            "reference_model; the names of transformers.TrainingArguments are read too, where "
            "`max_grad_norm` is nearest",
        ),
        (
            "train.zzz=1",
            "reference_model; the names of transformers.TrainingArguments are read too",
        ),
    ],
)
def test_single_mistakes(load: Any, override: str, message: str) -> None:
    assert message in errors_of(load, override)


@pytest.mark.parametrize("value", ["x", "", "[1]"])
def test_combinations_wait_for_legal_settings_of_training_arguments(load: Any, value: str) -> None:
    message = errors_of(load, f"train.max_steps={value}", "train.num_train_epochs=2")
    assert ": 1 problem:\n  - train.max_steps = " in message
    assert message.endswith("(on the command line): must be a whole number")


@pytest.mark.parametrize("value", ["", "3", "[1]", "text"])
def test_a_file_of_another_shape_is_refused(run_dir: Path, value: str) -> None:
    (run_dir / "odd.yaml").write_text(value)
    with pytest.raises(ConfigError, match=r"not a mapping|3 problems:"):
        load_run_config(run_dir / "odd.yaml")


def test_a_section_may_be_empty(run_dir: Path) -> None:
    (run_dir / "run.yaml").write_text((run_dir / "run.yaml").read_text() + "eval:\n")
    assert load_run_config(run_dir / "run.yaml").eval == EvalConfig()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dump")
    (folder / "mix.yaml").write_text("[]")
    return folder


PICTURES = st.just({"image_splitting": "overview"}) | st.fixed_dictionaries(
    {
        "image_splitting": st.none() | st.booleans(),
        "longest_edge_px": st.none() | st.integers(1, 4096),
    }
)


@settings(max_examples=50, deadline=None)  # the first example imports transformers
@given(data=st.data())
def test_what_is_written_loads_back_equal(folder: Path, data: st.DataObject) -> None:
    inline = st.lists(
        st.dictionaries(WORDS, WORDS | st.integers() | st.none(), max_size=2), max_size=2
    )
    config = RunConfig(
        model=ModelConfig(
            path=data.draw(st.sampled_from(["embedded", "a/b", str(folder)])), dtype="bfloat16"
        ),
        data=DataConfig(
            mixture=data.draw(inline | st.just(folder / "mix.yaml")),
            eval_mixture=data.draw(inline),
            base_dir=folder,
            max_tokens_per_pack=data.draw(st.integers(1, 10**6)),
            **data.draw(PICTURES),
            loss_weighting=data.draw(st.sampled_from(["token", "sample", "sqrt"])),
            on_bad_sample="skip",
            max_bad_fraction=data.draw(st.floats(min_value=0.001, max_value=1)),
        ),
        train=TrainConfig(
            output_dir=folder / data.draw(st.sampled_from(["out", "1e5", "no", "ä b"])),
            language_model_lr=data.draw(RATES),
            connector_lr=data.draw(RATES),
            vision_tower_lr=data.draw(st.just(0.0) | RATES),
            resume_from_checkpoint=data.draw(st.sampled_from(["auto", False, folder])),
            arguments={
                "run_name": data.draw(WORDS | st.sampled_from(["1e5", "no", "null", "012"])),
                "weight_decay": data.draw(st.integers(0, 1) | st.floats(min_value=0, max_value=1)),
                "eval_strategy": data.draw(st.sampled_from(["no", "steps", "epoch"])),
                "lr_scheduler_kwargs": data.draw(st.dictionaries(WORDS, RATES | WORDS, max_size=2)),
            },
        ),
        eval=EvalConfig(
            max_rows=data.draw(st.none() | st.integers(1, 10)), at_start=data.draw(st.booleans())
        ),
    )
    path = folder / "run.yaml"
    path.write_text(dump_run_config(config), encoding="utf-8")
    assert load_run_config(path) == config


def test_nothing_heavy_is_imported_where_no_name_has_to_be_looked_up(run_dir: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from smolvlm.config.load import load_run_config; "
        f"load_run_config(Path({str(run_dir / 'run.yaml')!r})); "
        "print([name for name in ('transformers', 'torch', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("override", "kept"),
    [
        ("train.max_steps=3", {"max_steps": 3}),
        ("train.num_train_epochs=0.5", {"num_train_epochs": 0.5}),
    ],
)
def test_a_length_on_the_command_line_takes_the_place_of_the_files(
    tmp_path: Path, override: str, kept: dict[str, float]
) -> None:
    other = "num_train_epochs: 2" if "max_steps" in override else "max_steps: 9"
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {{path: o/m}}\ndata: {{mixture: []}}\ntrain: {{output_dir: out, {other}}}\n"
    )
    assert load_run_config(path, [override]).train.arguments == kept
    with pytest.raises(ConfigError, match=r"has no effect with train\.max_steps"):
        load_run_config(path, ["train.max_steps=3", "train.num_train_epochs=1"])
