"""The run files of the evidence: they load, stage two begins where stage one ended, their heads say
what to expect."""

from pathlib import Path

import pytest

from experiments.evidence.run import RUN_FILES, STAGES, TASKS
from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig

REPOSITORY = Path(__file__).parents[3]


def loaded(name: str, number: int, model: Path) -> RunConfig:
    return load_run_config(
        RUN_FILES / f"{name}_{number}_{STAGES[number - 1]}.yaml", [f"model.path={model}"]
    )


@pytest.mark.parametrize("name", TASKS)
def test_both_stages_load_and_learn_from_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    warmup, lora = (loaded(name, number, tmp_path) for number in (1, 2))
    assert warmup.data == lora.data
    assert warmup.data.base_dir.resolve() == REPOSITORY / "runs" / "evidence" / name / "data"
    assert isinstance(warmup.data.eval_mixture, list)
    assert [source["name"] for source in warmup.data.eval_mixture] == list(TASKS[name].groups)
    assert (warmup.rate_of("language"), warmup.rate_of("vision")) == (0, 0)
    assert warmup.rate_of("connector") > 0
    kinds = {part: entry.type for part, entry in lora.adapters.entries()}
    assert kinds == {"language": "lora", "connector": "full", "vision": "frozen"}
    written = (RUN_FILES / f"{name}_2_{STAGES[1]}.yaml").read_text()
    assert f"  path: {warmup.train.output_dir.relative_to(REPOSITORY)}\n" in written


def test_heads_name_command_hardware_time_memory_and_score() -> None:
    files = sorted(RUN_FILES.glob("*.yaml"))
    assert len(files) == len(TASKS) * len(STAGES)
    for file in files:
        head = "".join(
            line for line in file.read_text().splitlines(keepends=True) if line.startswith("#")
        )
        assert f"smolvlm train {file.relative_to(REPOSITORY)}" in head
        for word in ("Hardware:", "Time:", "Memory:", "Score:", "docs/results.md", "4-bit"):
            assert word in head, (file, word)
