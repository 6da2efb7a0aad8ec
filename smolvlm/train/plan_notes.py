"""What the plan of a run gives reason to say at its start."""

from smolvlm.datasets.builder import PlannedData
from smolvlm.datasets.encoding.prompts import PromptSettings

MISSING_TAGS = (
    "note: this checkpoint's vocabulary has no <row_r_col_c> tags, so the tags of cut pictures "
    "become 5 to 9 pieces of "
    "text each, as in the released processor; data.image_splitting=false avoids them, and "
    "`smolvlm build --base ... --upgrade-tags` adds the tags (docs/new_tokens.md)"
)
AVERAGED_FRAMES = (
    "note: {count} frames of a clip share one place (data.average_frames), which plain "
    "transformers cannot do: its "
    "processor shows every frame by itself. Use this model with smolvlm (smolvlm eval RUN_FOLDER)"
)


def _warmup_note(planned: PlannedData, warmup: float) -> list[str]:
    """Return a note where the run ends before its learning rates have risen."""
    steps = planned.plan.num_steps
    if warmup < max(steps, 1):
        return []
    return [
        f"note: train.warmup_steps={warmup:g} is not over when the run ends, after {steps} steps"
    ]


def start_notes(prompt: PromptSettings, planned: PlannedData, *, warmup: float = 0) -> list[str]:
    """Return what the rows and the prompts of a run give reason to say at its start, in lines.

    Args:
        prompt: of the checkpoint.
        planned: the run's rows and steps.
        warmup: steps until the learning rates have risen.
    """
    averaged = prompt.media.frames.average_frames
    has_clips = any(counts.modalities.get("video") for counts in planned.measured.counts)
    notes = [MISSING_TAGS] if prompt.missing_tags else []
    notes += _warmup_note(planned, warmup)
    return [*notes, AVERAGED_FRAMES.format(count=averaged)] if has_clips and averaged > 1 else notes


def plan_summary(planned: PlannedData) -> str:
    """Return the plan in two lines."""
    plan, lengths = planned.plan, planned.measured.lengths
    return (
        f"{len(lengths):,} rows, {int(lengths.num_supervised_tokens.sum()):,} supervised of "
        f"{int(lengths.num_tokens.sum()):,} tokens; {len(planned.skipped):,} rows skipped\n"
        f"{plan.num_steps:,} steps, {plan.num_used_packs:,} packs, "
        f"{plan.packs.num_rows:,} samples, "
        f"{int(plan.packs.num_samples.sum()):,} once those of the same pictures are joined; fill "
        f"{plan.token_fill:.1%} of tokens, {plan.tile_fill:.1%} of tiles"
    )
