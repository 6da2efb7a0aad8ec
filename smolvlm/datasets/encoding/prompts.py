"""A checkpoint's processor, read once: how it shows media, and what its prompts are made of.

In: a transformers processor (Idefics3Processor, SmolVLMProcessor). Out: `PromptSettings`. Nothing
that a processor carries is hard-coded, and the processor itself is never changed.
"""

from dataclasses import dataclass
from hashlib import blake2b

from smolvlm.datasets.encoding.chat import Supervise
from smolvlm.datasets.encoding.encode import Encoder
from smolvlm.datasets.encoding.encoded import LossWeighting
from smolvlm.datasets.encoding.read_template import prompt_tokens, read_template
from smolvlm.datasets.encoding.split_template import ChatTemplate
from smolvlm.datasets.encoding.tokens import PromptTokens, TextEncoder, read_prompt_tokens
from smolvlm.datasets.encoding.video_words import PromptWording
from smolvlm.errors import ConfigError
from smolvlm.media.images import MAX_PIXELS
from smolvlm.media.settings import MediaSettings, VideoBackend
from smolvlm.media.tile_grid import ImageSplitting, TileSettings, check_tile_settings
from smolvlm.media.video.frames import FrameSettings
from smolvlm.protocols import Processor

LANCZOS = 1
"""Pillow's number of the filter, which processor files carry as `resample`."""
SPLITTING_KEY = "image_splitting"
"""Of processor files: `overview`, where pictures are shown as one tile and its overview."""
PUBLISHED_FRAMES = FrameSettings(fps=1.0, max_frames=64, sampling="fps")
"""What the released video processors carry, and what the published models' video stage was trained
with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSettings:
    """What encoding needs to know of a checkpoint."""

    tokens: PromptTokens
    text: TextEncoder
    template: ChatTemplate
    media: MediaSettings
    wording: PromptWording = "released"
    supervise: Supervise = "assistant"
    """Whose words are learned."""
    context_tokens: int | None = None
    """What the model holds of one conversation; None where no model was asked."""

    @property
    def missing_tags(self) -> bool:
        """Whether pictures are cut though the vocabulary lacks row and column tags.

        So it is with the first 2.2B checkpoint.

        Its tags then fall apart into pieces of text that were never learned.
        """
        pictures = self.media.pictures
        most = -(-pictures.longest_edge_px // pictures.tile_side_px)
        return pictures.image_splitting and any(
            len(ids) > 1 for place, ids in self.tokens.row_column.items() if max(place) <= most
        )

    @property
    def identity(self) -> str:
        """A digest, equal where every prompt is: tokens, tokenizer, tiles, frames, wording, and
        whose words are learned."""
        parts = (
            repr((self.tokens, self.template, self.media, self.wording, self.supervise)).encode()
            + self.text.definition().encode()
        )
        return blake2b(parts, digest_size=12).hexdigest()

    def encoder(self, *, loss_weighting: LossWeighting = "token") -> Encoder:
        return Encoder(
            tokens=self.tokens,
            text=self.text,
            template=self.template,
            wording=self.wording,
            supervise=self.supervise,
            loss_weighting=loss_weighting,
        )


def read_prompt_settings(
    processor: Processor,
    *,
    image_splitting: ImageSplitting | None = None,
    longest_edge_px: int | None = None,
    frames: FrameSettings = PUBLISHED_FRAMES,
    video_backend: VideoBackend = "pyav",
    wording: PromptWording = "released",
) -> PromptSettings:
    """Read a processor; pictures may be as large as they are unless a run says otherwise.

    Args:
        processor: the checkpoint's; untouched.
        image_splitting: cut pictures into tiles, or show the global view alone, or one tile
            besides it; None is the processor's own choice.
        longest_edge_px: scale the longest edge to this; None is the processor's own.
        frames: which frames of a clip are shown.
        video_backend: what decodes clips.
        wording: what is said around media.

    Raises:
        ConfigError: a needed token is missing, or the sizes do not fit each other.
    """
    images, tokenizer = processor.image_processor, processor.tokenizer
    if int(images.resample) != LANCZOS:
        raise ConfigError(
            f"the processor resizes with resample={int(images.resample)}, the family's is LANCZOS "
            f"({LANCZOS})",
            fix="set resample to 1 in preprocessor_config.json",
        )
    media = MediaSettings(
        pictures=_picture_tiles(
            processor, image_splitting=image_splitting, longest_edge_px=longest_edge_px
        ),
        frame_tiles=_frame_tiles(processor),
        frames=frames,
        video_backend=video_backend,
        max_image_pixels=MAX_PIXELS,
    )
    backend = tokenizer.backend_tokenizer  # as load_processor restored it: it splits digits
    template = read_template(processor)
    tokens = read_prompt_tokens(
        backend,
        template,
        tokens_per_tile=int(processor.image_seq_len),
        pad=tokenizer.pad_token_id,
    )
    return PromptSettings(
        tokens=tokens,
        text=TextEncoder(backend, prompt_tokens(processor, template)),
        template=template,
        media=media,
        wording=wording,
    )


def _picture_tiles(
    processor: Processor, *, image_splitting: ImageSplitting | None, longest_edge_px: int | None
) -> TileSettings:
    images = processor.image_processor
    splits = splitting_of(processor) if image_splitting is None else image_splitting
    side = int(images.max_image_size["longest_edge"])
    edge = side if splits == "overview" else int(images.size["longest_edge"])
    tiles = TileSettings(
        tile_side_px=side,
        longest_edge_px=int(longest_edge_px or edge),
        image_splitting=splits,
    )
    check_tile_settings(tiles)
    return tiles


def splitting_of(processor: Processor) -> ImageSplitting:
    """Return how a processor cuts pictures.

    transformers knows yes and no; the third way is a key of our own beside it, which transformers
    reads and writes again without a use for it.
    """
    images = processor.image_processor
    is_overview = getattr(images, SPLITTING_KEY, None) == "overview"
    return "overview" if is_overview else bool(images.do_image_splitting)


def _frame_tiles(processor: Processor) -> TileSettings:
    """Return how frames become tiles: as the video processor says, or to an edge of one tile.

    Where one file holds the settings of both, transformers (5.23) takes the pictures' longest edge
    for the frames' too, whatever `video_sampling.video_size` says: every frame would be blown up to
    2048 px and shrunk to 512 again. All published models say one tile there.
    """
    videos = getattr(
        processor, "video_processor", None
    )  # processors of the first models have no such thing
    side = edge = int(processor.image_processor.max_image_size["longest_edge"])
    if (
        videos is not None
        and videos.size["longest_edge"] != processor.image_processor.size["longest_edge"]
    ):
        edge = int(videos.size["longest_edge"])
    return TileSettings(tile_side_px=side, longest_edge_px=edge, image_splitting=False)
