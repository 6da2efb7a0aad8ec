"""Which evaluation's model a run ends with, in words and as its log line.

In: the settings as `run.yaml` holds them, evaluation lines. Out: what `eval.best_by`, or
transformers' own setting, chose.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from smolvlm.config.best import Best, best_evaluation
from smolvlm.config.eval_metrics import plain_name
from smolvlm.pages.token_text import plural
from smolvlm.report.files import Metrics, RunFiles


def settings_of(text: str) -> Mapping[str, Any]:
    """Return a run file's sections; empty where the text is none."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def best_of_run(settings: str, evals: Sequence[Metrics]) -> tuple[str, Best] | None:
    """Return by what the best evaluation was chosen, and which it was; None where it was not
    asked."""
    best_by = _best_by(settings_of(settings))
    best = best_evaluation(evals, best_by) if best_by is not None else None
    return None if best_by is None or best is None else (best_by, best)


def best_sentence(run: RunFiles) -> str:
    """Return which step's model the run ends with, and whether it stopped early; empty where the
    last one's is taken."""
    found = best_of_run(run.settings, run.evals)
    if found is None:
        return ""
    best_by, best = found
    if run.progress is not None:
        return f"The best {best_by} so far is that of step {best.step:,}, {best.value:.4f}."
    sentence = (
        f"The model is that of step {best.step:,}, whose {best_by} is the best, {best.value:.4f}."
    )
    patience = _section(settings_of(run.settings), "eval").get("patience")
    if isinstance(patience, int) and best.num_since >= patience:
        since = plural(best.num_since, "evaluation")
        sentence += f" Training stopped after {since} without anything better."
    return sentence


def final_scores(run: RunFiles) -> Metrics:
    """Return the evaluation line of the model that a run ends with, or has now; empty where there
    is none but the untrained model's."""
    found = best_of_run(run.settings, run.evals) if run.progress is None else None
    step = None if found is None else found[1].step
    lines = [line for line in run.evals if line["step"] > 0]
    return next((line for line in reversed(lines) if step in (None, line["step"])), {})


def _best_by(settings: Mapping[str, Any]) -> str | None:
    chosen = _section(settings, "eval").get("best_by")
    train = _section(settings, "train")
    if chosen is None and train.get("load_best_model_at_end"):
        chosen = plain_name(str(train.get("metric_for_best_model") or "loss"))
    return chosen if isinstance(chosen, str) else None


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, dict) else {}
