"""Combinations that cannot work."""

from typing import Any

import pytest

from smolvlm.errors import ConfigError

EVALUATED = ("data.eval_mixture=eval.yaml", "train.eval_strategy=steps")
NO_RATES = ("train.language_model_lr=0", "train.connector_lr=0", "train.vision_tower_lr=0")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            NO_RATES,
            "train.language_model_lr = 0 (on the command line): all three learning rates are 0, so "
            "nothing is trained",
        ),
        (
            ["train.enable_jit_checkpoint=true", "train.save_only_model=true"],
            "train.enable_jit_checkpoint = true (on the command line): train.save_only_model is "
            "true as well, and nothing resumes from such a checkpoint",
        ),
        (
            ["data.on_bad_sample=skip", "data.max_bad_fraction=0"],
            "with data.on_bad_sample = skip, not one row could be skipped",
        ),
        (
            ["data.average_frames=2", "data.max_frames=1"],
            "data.average_frames = 2 (on the command line): has no effect with data.max_frames = "
            "1: there is nothing",
        ),
        (
            ["data.prompt_wording=legacy", "data.mark_newlines=keep"],
            "data.mark_newlines = keep (on the command line): has no effect with "
            "data.prompt_wording = legacy",
        ),
        (
            ["data.prompt_wording=legacy", "data.supervise=text"],
            "data.supervise = text (on the command line): with data.prompt_wording = legacy",
        ),
        (
            ["train.method=dpo", "data.supervise=text"],
            "data.supervise = 'text' (on the command line): has no effect with train.method = dpo",
        ),
        (
            ["data.share_media=false", "data.max_branches=4"],
            "data.max_branches = 4 (on the command line): has no effect with",
        ),
        (
            ["data.vision_cache=false", "data.vision_cache_dir=c"],
            "has no effect with data.vision_cache = false",
        ),
        (
            ["data.vision_cache=false", "data.vision_cache_max_gb=2.5"],
            "data.vision_cache_max_gb = 2.5 (on the command line): has no effect with "
            "data.vision_cache = false",
        ),
        (["data.vision_cache_max_gb=0"], "data.vision_cache_max_gb = 0 (on the command line)"),
        (
            ["train.vision_tower_lr=1e-6", "data.vision_cache_dir=c"],
            "has no effect with a vision tower that is trained",
        ),
        (
            ["train.eval_strategy=steps"],
            "train.eval_strategy = 'steps' (on the command line): there is no data.eval_mixture",
        ),
        (
            ["train.load_best_model_at_end=true"],
            "cannot take effect as the other settings stand; set train.eval_strategy",
        ),
        (
            ["train.eval_steps=10"],
            "train.eval_steps = 10 (on the command line): cannot take effect",
        ),
        (
            ["train.lr_scheduler_type=reduce_lr_on_plateau"],
            "set train.eval_strategy: steps or epoch",
        ),
        (["train.save_strategy=best"], "set train.eval_strategy: steps or epoch"),
        ([*EVALUATED, "train.save_strategy=best"], "set train.metric_for_best_model"),
        (
            [*EVALUATED, "train.load_best_model_at_end=true", "train.save_strategy=epoch"],
            "set train.save_strategy: steps",
        ),
        (
            ["train.bf16=true", "train.fp16=true"],
            "train.fp16 = true (on the command line): train.bf16 is true as well",
        ),
        (
            ["train.fp16=true", "model.dtype=bfloat16"],
            "the weights are held in bfloat16; set train.bf16: true instead",
        ),
        (
            ["train.max_steps=5", "train.num_train_epochs=2"],
            "train.num_train_epochs = 2 (on the command line): has no effect",
        ),
        (
            ["data.prefetch_mb=64"],
            "data.prefetch_mb = 64 (on the command line): has no effect without loader workers",
        ),
        (["train.dataloader_prefetch_factor=2"], "set train.dataloader_num_workers above 0"),
        (["train.hub_model_id=a/b"], "set train.push_to_hub: true"),
        (
            ["train.deepspeed={a: 1}", "train.fsdp=full_shard"],
            "asks for deepspeed, and train.fsdp for fsdp2; choose one of the two",
        ),
    ],
)
def test_a_combination_that_cannot_work_is_refused(
    load: Any, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert message in str(caught.value)
    assert "1 problem:" in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        EVALUATED,
        [*EVALUATED, "train.eval_steps=10", "train.load_best_model_at_end=true"],
        [*EVALUATED, "train.save_strategy=best", "train.metric_for_best_model=loss"],
        ["eval.at_start=true"],
        ["data.share_media=false"],
        ["data.vision_cache_dir=c"],
        ["data.vision_cache_max_gb=0.5"],
        ["train.max_steps=-1", "train.num_train_epochs=2"],
        ["train.language_model_lr=0", "train.connector_lr=0", "train.vision_tower_lr=1e-6"],
        [
            "train.dataloader_num_workers=2",
            "train.dataloader_prefetch_factor=2",
            "data.prefetch_mb=64",
        ],
        ["train.push_to_hub=true", "train.hub_model_id=a/b"],
        ["train.bf16=true", "model.dtype=bfloat16"],
    ],
)
def test_a_combination_that_works_loads(load: Any, overrides: list[str]) -> None:
    load(*overrides)
