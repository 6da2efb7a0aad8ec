"""How often answers stand in the wrong form, how often they are right, and how likely the right
ones are.

In: a run's answers to held-out questions, and log-probabilities of the right answer in both forms.
Out: a row of the table for each question type, and the figure of the rewards. An answer is right
strictly if it is the plain one, and right in any form if it is once the habit is taken off.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float32

from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.config.schema import DataConfig
from smolvlm.datasets.builder import measure_mixture, one_pass, read_prompt
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.plan import plan_training
from smolvlm.eval.metrics.exact_match import exact_match
from smolvlm.eval.prediction import Prediction, accuracy_by_source
from smolvlm.train.methods.reference import reference_logps

_HABIT = re.compile(r"the answer is (.*?)\.?", re.IGNORECASE)


def in_habit(answer: str) -> str:
    """Return an answer in the wrong form."""
    return f"The answer is {answer}."


def without_habit(answer: str) -> str:
    """Return an answer as it would be in plain form; one that is plain stays."""
    found = _HABIT.fullmatch(answer.strip())
    return found[1] if found else answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Of one question type; shares are of its rows."""

    num_rows: int
    in_habit: float
    right_strictly: float
    right_in_any_form: float
    plain_logp: float
    """Mean log-probability of the right answer in plain form, nats."""
    habit_logp: float
    """The same in the habit's form."""


def scores_of(
    predictions: Sequence[Prediction], logps: Mapping[str, Float32[np.ndarray, "row 2"]]
) -> dict[str, Score]:
    """Return each question type's score.

    Args:
        predictions: the source is the type.
        logps: of (plain, habit) by type.
    """
    strict = accuracy_by_source(predictions)
    loose = accuracy_by_source(_without_habit(prediction) for prediction in predictions)
    return {
        group: Score(
            num_rows=strict[group][1],
            in_habit=fmean(
                _HABIT.fullmatch(own.answer) is not None
                for own in predictions
                if own.source == group
            ),
            right_strictly=strict[group][0],
            right_in_any_form=loose[group][0],
            plain_logp=float(own_logps[:, 0].mean()),
            habit_logp=float(own_logps[:, 1].mean()),
        )
        for group, own_logps in logps.items()
    }


def _without_habit(prediction: Prediction) -> Prediction:
    answer = without_habit(prediction.answer)
    return replace(prediction, answer=answer, correct=exact_match(answer, prediction.references))


def test_logps(checkpoint_dir: Path, pairs_file: Path) -> Float32[np.ndarray, "row 2"]:
    """Return what a checkpoint thinks of both answers of some pairs."""
    checkpoint = load_checkpoint(str(checkpoint_dir))
    data = DataConfig(
        mixture=[{"json_path": str(pairs_file), "path": str(pairs_file.parent)}],
        image_splitting=False,
        max_tokens_per_pack=1024,
    )
    prompt = read_prompt(checkpoint.processor, data)
    measured = measure_mixture(data.mixture, data, prompt=prompt, kind="preference")
    plan = plan_training(measured.lengths, one_pass(data))
    packs = PackDataset(measured, plan, encoder=prompt.encoder(), settings=prompt.media)
    return reference_logps(
        checkpoint.model, packs, folder=checkpoint_dir / "test_pairs", identity="trained"
    )


def markdown_table(scores: Mapping[str, Mapping[str, Score]]) -> str:
    """Return all runs' scores as a table; shares in percent."""
    lines = [
        "| model | questions | rows | wrong form | right, strictly | right, any form | "
        "log-probability plain / habit |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, groups in scores.items():
        for group, own in groups.items():
            shares = (own.in_habit, own.right_strictly, own.right_in_any_form)
            cells = " | ".join(f"{100 * share:.1f}" for share in shares)
            logps = f"{own.plain_logp:.2f} / {own.habit_logp:.2f}"
            lines.append(f"| {name} | {group} | {own.num_rows} | {cells} | {logps} |")
    return "\n".join(lines)


def as_json(scores: Mapping[str, Mapping[str, Score]]) -> dict[str, Any]:
    """Return the same for a file."""
    return {
        name: {group: asdict(own) for group, own in groups.items()}
        for name, groups in scores.items()
    }


def draw_rewards(lines: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw what the preference run logged: rewards of both answers, and the share of pairs ordered
    right."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    logged = [line for line in lines if "rewards_margin" in line]
    steps = [line["step"] for line in logged]
    with rc_context({"svg.hashsalt": "habit", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        rewards, right = figure.subplots(1, 2)
        for name, label in (
            ("rewards_chosen", "plain"),
            ("rewards_rejected", "habit"),
            ("rewards_margin", "margin"),
        ):
            rewards.plot(steps, [line[name] for line in logged], label=label)
        rewards.set(xlabel="step", ylabel="reward")
        rewards.legend(frameon=False)
        right.plot(steps, [line["loss"] for line in logged], label="loss")
        right.plot(
            steps, [line["rewards_accuracy"] for line in logged], label="pairs ordered right"
        )
        right.set(xlabel="step", ylim=(0, 1.05))
        right.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
