"""A model card: what a saved model is, of what it was made, how good it is, how it is loaded.

In: what a run left in its folder. Out: `README.md`, in the form that the Hugging Face hub reads:
facts for its search in front, Markdown below. Sources of rows are named, with their licences where
the mixture says them; rows, pictures and paths of this machine are not. A card that a person has
taken over (the last line says how) is not written again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from smolvlm import __version__
from smolvlm.checkpoints.peft_layers import is_adapter_folder
from smolvlm.config.paths import can_be_hub_id
from smolvlm.config.yaml_text import read_yaml
from smolvlm.disk.atomic_files import write_text
from smolvlm.errors import ConfigError
from smolvlm.export.proof import PROOF_FILE
from smolvlm.publish.loading import LIBRARY, Form, loading_text, proof_text
from smolvlm.report.accuracy import Accuracy
from smolvlm.report.files import RunFiles, read_run_files
from smolvlm.report.places import duration
from smolvlm.report.private import is_private
from smolvlm.report.report import accuracy_rows, short_count, training_seconds

CARD = "README.md"
OURS = "<!-- written by smolvlm at the end of each run, unless this line is taken out -->"
_LIMITS = """## Limits

It answers like the rows that it was trained on, and was not tested elsewhere unless the table says
so. What the base says of its own limits and licence holds here too."""
_SPLITTING = {"True": "cut into tiles, and an overview", "False": "one tile"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFacts:
    """One source of a mixture, as its card names it."""

    name: str
    hub_id: str | None
    licence: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """What a card is written from."""

    run: RunFiles
    settings: Mapping[str, Any]
    """Of `run.yaml`."""
    title: str
    form: Form
    files: tuple[str, ...]
    """Names in the model's folder."""
    proof: Mapping[str, Any] | None
    """How an export was compared; None of what was not exported, or not compared."""
    num_parameters: int | None
    """Of the weights in the folder; None where their file says nothing."""

    @property
    def is_adapter(self) -> bool:
        return self.form == "adapter"

    @property
    def base(self) -> str | None:
        """The base's hub id; None where it was a folder."""
        path = str(self.settings.get("model", {}).get("path", ""))
        return path if can_be_hub_id(path) and not Path(path).exists() else None


def write_model_card(
    run_dir: Path,
    *,
    into: Path | None = None,
    title: str | None = None,
    form: Form = "transformers",
) -> Path:
    """Write the card of a run's model, unless a person has taken it over; return its path.

    Args:
        run_dir: the run's folder.
        into: the folder of the model, where it is not the run's: an export.
        title: the folder's name by default.
        form: of the files; an adapter is known by its own.

    Raises:
        ConfigError, SampleError: the folder is no run's, or one of its files is damaged.
    """
    folder = into or run_dir
    path = folder / CARD
    if path.is_file() and OURS not in path.read_text(encoding="utf-8"):
        return path
    facts = CardFacts(
        run=read_run_files(run_dir),
        settings=read_yaml(run_dir / "run.yaml") or {},
        title=title or folder.resolve().name,
        form="adapter" if is_adapter_folder(folder) else form,
        files=tuple(sorted(file.name for file in folder.rglob("*") if file.is_file())),
        proof=_read_proof(folder),
        num_parameters=_num_parameters(folder),
    )
    write_text(path, card_text(facts))
    return path


def write_export_card(checkpoint: Path, folder: Path, form: Form) -> Path | None:
    """Write the card of an export of a run, or of one of its checkpoints; None of another model,
    of which nothing is known here.

    Args:
        checkpoint: what was exported.
        folder: what was written.
        form: of the files.
    """
    for place in (checkpoint, checkpoint.absolute().parent):
        if (place / "run.yaml").is_file() and (place / "metrics.jsonl").is_file():
            return write_model_card(place, into=folder, form=form)
    return None


def card_text(facts: CardFacts) -> str:
    """Return a card's text."""
    head = yaml.safe_dump(_for_search(facts), sort_keys=False, allow_unicode=True)
    loading = loading_text(facts.form, base=facts.base, files=facts.files)
    proof = "" if facts.proof is None else proof_text(facts.proof)
    parts = [_intro(facts), loading, proof, _scores(facts), _data(facts), _training(facts)]
    body = "\n\n".join(part for part in (*parts, _costs(facts), _LIMITS) if part)
    return f"---\n{head}---\n\n# {_plain(facts.title)}\n\n{body}\n\n{OURS}\n"


def sources_of(settings: Mapping[str, Any], key: str = "mixture") -> list[SourceFacts]:
    """Return the sources that settings name; none of a file that is no longer there."""
    data = settings.get("data") or {}
    mixture = data.get(key)
    if isinstance(mixture, str):
        try:
            mixture = read_yaml(Path(str(data.get("base_dir") or "."), mixture))
        except ConfigError:
            return []
    groups = mixture.values() if isinstance(mixture, Mapping) else [mixture]
    entries = [entry for group in groups if isinstance(group, list) for entry in group]
    hides = is_private(settings)
    return [_source(entry, hides=hides) for entry in entries if isinstance(entry, Mapping)]


def _source(entry: Mapping[str, Any], *, hides: bool) -> SourceFacts:
    hub_id = None if hides else entry.get("hub")
    file = str(entry.get("json_path") or entry.get("path") or entry.get("memory") or "")
    name = entry.get("name") or hub_id or Path(file.partition("?")[0]).name.partition(".")[0]
    name = name or "a data set of the hub"
    licence = entry.get("license")
    return SourceFacts(
        name=str(name),
        hub_id=None if hub_id is None else str(hub_id),
        licence=None if licence is None else str(licence),
    )


def _for_search(facts: CardFacts) -> dict[str, Any]:
    """Return the facts by which the hub finds a model."""
    method, kinds = _method(facts.settings), sorted(set(_adapters(facts.settings).values()))
    content: dict[str, Any] = {
        "library_name": LIBRARY[facts.form],
        "pipeline_tag": "image-text-to-text",
        "tags": ["smolvlm", "vision-language-model", method, *kinds],
    }
    if facts.base is not None:
        content["base_model"] = facts.base
        content["base_model_relation"] = "adapter" if facts.is_adapter else "finetune"
    hub_ids = {source.hub_id for source in sources_of(facts.settings)} - {None}
    if hub_ids:
        content["datasets"] = sorted(str(one) for one in hub_ids)
    results = [
        {
            "task": {"type": "image-text-to-text"},
            "dataset": {"name": row.after.group, "type": row.after.group},
            "metrics": [{"type": "accuracy", "value": round(row.after.value, 4)}],
        }
        for row in accuracy_rows(facts.run)
    ]
    if results:
        content["model-index"] = [{"name": facts.title, "results": results}]
    return content


def _intro(facts: CardFacts) -> str:
    base = f"`{facts.base}`" if facts.base else "a model that lay in a folder"
    kind = "An adapter of" if facts.is_adapter else "Fine-tuned from"
    how = {"sft": "on questions and answers", "dpo": "on preferences (DPO)"}
    method = _method(facts.settings)
    trained = how.get(method, f"by {method}")
    return f"{kind} {base}, trained {trained} with smolvlm {__version__}."


def _scores(facts: CardFacts) -> str:
    rows = accuracy_rows(facts.run)
    if not rows:
        return "## Scores\n\nIt was not evaluated on held-out rows."
    table = ["| held-out rows | number | before | after | 95 % interval |", "|---|---|---|---|---|"]
    for row in rows:
        before = f"{100 * row.before.value:.1f}" if row.before else ""
        table.append(
            f"| {_plain(row.after.group)} | {row.after.num_rows:,} | {before} | "
            f"{100 * row.after.value:.1f} | {_interval(row.after)} |"
        )
    return "\n".join(
        ["## Scores", "", "Share of answers that are right, %; greedy decoding.", "", *table]
    )


def _data(facts: CardFacts) -> str:
    lines = ["## Data", "", "| trained on | licence |", "|---|---|"]
    sources = sources_of(facts.settings)
    for source in sources:
        name = f"`{source.hub_id}`" if source.hub_id else _plain(source.name)
        lines.append(f"| {name} | {_plain(source.licence or 'not stated')} |")
    if not sources:
        lines.append("| not known: the mixture is no longer where it was | |")
    held_out = [_plain(source.name) for source in sources_of(facts.settings, "eval_mixture")]
    if held_out:
        lines += ["", f"Evaluated on: {', '.join(held_out)}."]
    return "\n".join(lines)


def _training(facts: CardFacts) -> str:
    train, data = facts.settings.get("train") or {}, facts.settings.get("data") or {}
    adapters = _adapters(facts.settings)
    rows: list[tuple[str, object]] = [
        ("method", _method(facts.settings)),
        ("learning rate, language model", train.get("language_model_lr")),
        ("learning rate, connector", train.get("connector_lr")),
        ("learning rate, vision tower", train.get("vision_tower_lr")),
        ("adapters", ", ".join(f"{part}: {kind}" for part, kind in adapters.items())),
        ("base in bits", (facts.settings.get("quantization") or {}).get("bits")),
        ("packs a step", train.get("packs_per_step")),
        ("tokens a pack, at most", data.get("max_tokens_per_pack")),
        ("pictures", _SPLITTING.get(str(data.get("image_splitting")), data.get("image_splitting"))),
        ("schedule", train.get("lr_scheduler_type")),
        ("seed", train.get("seed")),
        *_course(facts.run),
    ]
    lines = [
        f"| {name} | {_plain(str(value))} |" for name, value in rows if value not in (None, "")
    ]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines])


def _course(run: RunFiles) -> Iterator[tuple[str, str]]:
    """Yield what was trained on what, and where."""
    if run.train:
        samples = sum(line.get("num_samples", 0) for line in run.train)
        learned = sum(line.get("num_supervised_tokens", 0) for line in run.train)
        yield "steps", f"{run.train[-1]['step']:,.0f}"
        yield "samples", f"{samples:,.0f}, {short_count(learned)} learned tokens"
        yield "last loss", f"{run.train[-1]['loss']:.4f}"
        if seconds := training_seconds(run.train):
            yield "time in steps", duration(seconds)
    if run.starts:
        start = run.starts[-1]
        device, kernels = start.device, start.kernels
        yield "machine", f"{device.get('name')}, {device.get('num_ranks', 1)} rank(s)"
        yield "computed in", str(kernels.get("autocast_dtype") or kernels.get("weights_dtype"))
        yield "versions", ", ".join(f"{name} {value}" for name, value in start.versions.items())


def _costs(facts: CardFacts) -> str:
    if not facts.num_parameters:
        return ""
    count, what = facts.num_parameters, "The adapter" if facts.is_adapter else "The model"
    sizes = ", ".join(
        f"{count * size / 1e9:.2f} GB in {name}" for name, size in (("float32", 4), ("bfloat16", 2))
    )
    return f"## What it costs\n\n{what} has {count:,} parameters: {sizes}."


def _interval(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}"


def _method(settings: Mapping[str, Any]) -> str:
    method = (settings.get("train") or {}).get("method", "sft")
    return str(method.get("type", "sft") if isinstance(method, Mapping) else method)


def _adapters(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return tower -> kind of adapter."""
    found: dict[str, str] = {}
    for part, entry in (settings.get("adapters") or {}).items():
        kind = entry.get("type") if isinstance(entry, Mapping) else entry
        if kind not in (None, "full", "none"):
            found[str(part)] = str(kind)
    return found


def _read_proof(folder: Path) -> Mapping[str, Any] | None:
    path = folder / PROOF_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _num_parameters(folder: Path) -> int | None:
    """Return how many numbers the weights' files hold, by their headers."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header: Mapping[str, Any] = json.loads(file.read(size))
        for name, tensor in header.items():
            if name != "__metadata__":
                count += _product(tensor["shape"])
    return count or None


def _product(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _plain(text: str) -> str:
    """Return text as one line of a table that says what it says, and marks nothing up."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
