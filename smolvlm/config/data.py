"""The run file's `data`: the rows that are trained on, how their media are cut, how they are
packed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.section import PATH_WORDS, Count, FilePath, Section

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

_MIXTURE_WORDS = "must be a file, or the list or mapping of sources"


def _not_a_boolean(value: object) -> object:
    if isinstance(value, bool):  # true equals 1
        raise ValueError("a boolean is no number")
    return value


Mixture = FilePath | list[Any] | dict[str, Any]


class DataConfig(Section):
    """What is trained on, and how it is cut and packed."""

    FIELD_WORDS: ClassVar[Mapping[str, str]] = {
        "mixture": _MIXTURE_WORDS,
        "eval_mixture": _MIXTURE_WORDS,
        "base_dir": PATH_WORDS,
        "vision_cache_dir": PATH_WORDS,
        "average_frames": "must be 1, 2, 4 or 8",
        "image_splitting": "must be true, false or overview",
    }

    mixture: Mixture
    """A YAML file, or the sources written here."""
    eval_mixture: Mixture | None = None
    """The same, for evaluation."""
    base_dir: FilePath = Path(".")
    """Folder that the relative paths of inline mixtures start from; the run file's folder unless
    given."""
    allow_outside_root: bool = False
    """Whether rows may name pictures outside their source's folder of pictures (`..`, links,
    absolute paths)."""
    allow_urls: bool = False
    """Whether rows may name pictures and clips by http and https addresses; they are fetched once
    and kept."""
    allow_private_urls: bool = False
    """Whether, with `allow_urls`, those may lead to servers that are not public: this machine, its
    network."""
    max_tokens_per_pack: Count = 4096
    """Tokens that are computed together, of several conversations; a longer conversation is a bad
    row."""
    max_tiles_per_pack: Count = 64
    """Tiles that are encoded together."""
    share_media: bool = True
    """Conversations that begin with the same pictures become one tree, and the pictures are read
    once."""
    max_branches: Count = 16
    """Conversations in one tree."""
    image_splitting: Literal["overview"] | bool | None = None
    """Whether pictures are cut into tiles; `overview` shows each as one tile and its overview, as
    llama.cpp does; None is the processor's own setting."""
    longest_edge_px: Count | None = None
    """What a picture's longest edge is scaled to; None is the processor's own setting."""
    max_image_pixels: Count = 89_478_485
    """Largest picture that is opened, in pixels (width x height), which is Pillow's own limit; each
    million takes 3 to 4 MB while it is decoded. Frames given as pictures are held to it too."""
    max_row_bytes: Count = 134_217_728
    """Largest row that is read, in bytes (128 MiB): its text, its cells, or its values in Parquet
    and Arrow, media within them included. Each process that reads takes several times as much
    memory. A larger row is a bad row; in a JSON list or CSV nothing is read behind it."""
    max_decode_s: Annotated[float, Field(gt=0)] = 60.0
    """Longest that the pictures and clips of one row may take to decode, in seconds of CPU time, so
    that a busy machine does not decide. A row beyond it ends the run, whatever `on_bad_sample`
    says."""
    fps: Annotated[float, Field(gt=0)] = 1.0
    """Frames shown of a second of video; fewer where that would be more than `max_frames`."""
    max_frames: Count = 64
    """Frames shown of one clip at most."""
    sampling: Literal["fps", "uniform"] = "fps"
    """`uniform` shows `max_frames` frames of every clip, however long it is."""
    average_frames: Annotated[Literal[1, 2, 4, 8], BeforeValidator(_not_a_boolean)] = 1
    """How many consecutive frames of a clip share one place in the text, as the mean of their
    features; 1 is off."""
    video_backend: Literal["pyav", "torchcodec", "decord"] = "pyav"
    """What decodes clips."""
    prompt_wording: Literal["released", "legacy"] = "released"
    """What is said around media: as the released processor says it, or as the released models' own
    training did."""
    mark_newlines: Literal["drop", "keep"] = "drop"
    """Whether the newline beside a mark that is alone on its line is said to the model; the
    released models were trained without it."""
    supervise: Literal["assistant", "text"] = "assistant"
    """Whose words are learned: the assistant's, or the user's and their ends too."""
    loss_weighting: Literal["token", "sample", "sqrt"] = "token"
    """Weight of each of a conversation's n supervised tokens: 1, 1/n or 1/sqrt(n)."""
    on_bad_sample: Literal["error", "skip"] = "error"
    """Whether a row that cannot be used ends the run or is passed over and counted."""
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Largest share of a source's rows that may be skipped."""
    vision_cache: bool = True
    """Compute each tile's features once; takes effect where the vision tower is frozen."""
    vision_cache_dir: FilePath | None = None
    """None is `vision_cache` in the output folder. Ranks and runs share what lies there."""
    vision_cache_max_gb: Annotated[float, Field(gt=0)] | None = None
    """What all features in that folder may take of the disk, in 10^9 bytes, those of other towers
    included; None is no bound. The file that was used longest ago goes first; where a run has more
    tiles than there is room for, the first ones stay."""
    pad_packs: bool = False
    """Whether packs are padded to sizes that come up again and again, so that a GPU meets few
    shapes; at most an eighth is added, and no loss changes. What it gains on a GPU is not measured
    yet: `make gpu-check` compares."""
    prefetch_mb: Count = 512
    """Memory of a rank's packs that loader workers make ahead, two at least, in 10^6 bytes; besides
    it stands `train.dataloader_prefetch_factor`, in packs a worker."""

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield settings that another one leaves without effect."""
        if self.on_bad_sample == "skip" and self.max_bad_fraction == 0:
            what = "with data.on_bad_sample = skip, not one row could be skipped"
            fix = "set data.on_bad_sample: error, or allow a share"
            yield Problem(key="data.max_bad_fraction", value="0", what=what, fix=fix)
        if (
            not self.share_media
            and self.max_branches != DataConfig.model_fields["max_branches"].default
        ):
            what = "has no effect with data.share_media = false"
            yield Problem(
                key="data.max_branches",
                value=str(self.max_branches),
                what=what,
                fix="take one of the two out",
            )
        if self.image_splitting == "overview" and self.longest_edge_px is not None:
            yield Problem(
                key="data.longest_edge_px",
                value=str(self.longest_edge_px),
                what="has no effect with data.image_splitting = overview: pictures are one tile",
                fix="take one of the two out",
            )
        if self.prompt_wording == "legacy":
            yield from self._without_effect_in_legacy()
        if self.supervise == "text" and config.train.method.ROWS != "conversation":
            yield Problem(
                key="data.supervise",
                value=shown_value(self.supervise),
                what=f"has no effect with train.method = {config.train.method.type}",
                fix="take it out: preferences are learned from answers",
            )
        if self.average_frames > 1 and self.max_frames == 1:
            what = "has no effect with data.max_frames = 1: there is nothing to average"
            yield Problem(
                key="data.average_frames",
                value=str(self.average_frames),
                what=what,
                fix="take one of the two out",
            )
        if not self.vision_cache or config.rate_of("vision") > 0:
            yield from self._without_a_cache()
        if self.allow_private_urls and not self.allow_urls:
            what, fix = "has no effect without data.allow_urls", "set data.allow_urls: true"
            yield Problem(key="data.allow_private_urls", value="true", what=what, fix=fix)
        has_workers = bool(config.train.arguments.get("dataloader_num_workers"))
        if self.prefetch_mb != DataConfig.model_fields["prefetch_mb"].default and not has_workers:
            fix = "set train.dataloader_num_workers above 0, or take it out"
            what = "has no effect without loader workers"
            yield Problem(key="data.prefetch_mb", value=str(self.prefetch_mb), what=what, fix=fix)

    def _without_a_cache(self) -> Iterator[Problem]:
        trained = "a vision tower that is trained"
        what = f"has no effect with {trained if self.vision_cache else 'data.vision_cache = false'}"
        for name in ("vision_cache_dir", "vision_cache_max_gb"):
            if (value := getattr(self, name)) is not None:
                shown = shown_value(value if isinstance(value, float) else str(value))
                yield Problem(key=f"data.{name}", value=shown, what=what, fix="take it out")

    def _without_effect_in_legacy(self) -> Iterator[Problem]:
        if self.mark_newlines == "keep":
            what = "has no effect with data.prompt_wording = legacy, which strips every text"
            yield Problem(key="data.mark_newlines", value="keep", what=what, fix="take it out")
        if self.supervise == "text":
            what = "with data.prompt_wording = legacy, words of ours would be learned as the user's"
            fix = "set data.prompt_wording: released"
            yield Problem(key="data.supervise", value="text", what=what, fix=fix)
