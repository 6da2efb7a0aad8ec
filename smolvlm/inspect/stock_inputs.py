"""What the stock processor makes of a row: what ours is compared with.

In: a row and how the run cuts and shows its media. Out: tensors for the stock model. Clips are
given to the stock processor as the frames that the run shows, with their own times; which frames
those are is the run's choice.

The stock processor has no setting for one tile and its overview (`data.image_splitting: overview`).
There the picture is shown to it as one tile, and that tile, its tag and an empty line are put
before what it said: the tile is the overview, pixel by pixel.

The stock processor and class know no averaging of frames. Where a run averages, the ids are those
of a clip that has only the first frame of each group, the pixels are every frame's, and
`averaged_inputs` puts the means of the stock model's own features where the image tokens stand.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from smolvlm.datasets.encoding.read_template import read_template
from smolvlm.media.images import open_rgb
from smolvlm.media.settings import MediaSettings
from smolvlm.media.video.reader import read_frames
from smolvlm.protocols import Processor
from smolvlm.records import Conversation, Frames, ImageRef, Layout, Media, VideoRef

if TYPE_CHECKING:
    from transformers.video_utils import VideoMetadata

WANTED = ("input_ids", "attention_mask", "pixel_values", "pixel_attention_mask")


def stock_inputs(
    processor: Processor, row: Conversation, *, layouts: Sequence[Layout], settings: MediaSettings
) -> dict[str, Tensor]:
    """Return the stock processor's tensors of one row.

    Args:
        processor: the checkpoint's, untouched.
        row: any conversation.
        layouts: what is shown of its media.
        settings: of the run.
    """
    if settings.pictures.image_splitting == "overview":
        pictures = replace(settings.pictures, image_splitting=False)
        as_one_tile = replace(settings, pictures=pictures)
        inputs = stock_inputs(processor, row, layouts=layouts, settings=as_one_tile)
        return with_tiles_before_overviews(processor, inputs, layouts)
    if any(isinstance(medium, VideoRef) for medium in row.media):
        return _with_clips(_for_video(processor, settings), row, layouts=layouts, settings=settings)
    max_pixels = settings.max_image_pixels
    pictures = [
        open_rgb(medium, max_pixels=max_pixels)
        for medium in row.media
        if isinstance(medium, ImageRef)
    ]
    more = _picture_settings(settings) if pictures else {}
    text = _stock_text(processor, row)
    inputs = processor(
        text=text, images=[pictures] if pictures else None, return_tensors="pt", **more
    )
    return {name: inputs[name] for name in WANTED if name in inputs}


def _stock_text(processor: Processor, row: Conversation) -> str:
    """Return the stock processor's prompt, by the family's template where it has none."""
    template = read_template(processor)
    shown = _messages(row)
    # Rendered here first, within limits: transformers sets none.
    rendered = template.rendered(shown, add_generation_prompt=False)
    if not template.takes_blocks:
        return rendered
    if processor.chat_template:  # that of SmolVLM takes another by itself where there is a clip
        return processor.apply_chat_template(shown)
    return processor.apply_chat_template(shown, chat_template=template.source)


def with_tiles_before_overviews(
    processor: Processor, inputs: dict[str, Tensor], layouts: Sequence[Layout]
) -> dict[str, Tensor]:
    """Return inputs in which each picture's one tile stands twice: as a tile, and as the overview.

    Args:
        processor: which made the inputs.
        inputs: of one row, whose pictures were shown as one tile each.
        layouts: what is shown of its media, in prompt order.
    """
    size = processor.image_seq_len
    tokenizer: Any = processor.tokenizer

    def ids_of(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    ids = inputs["input_ids"][0].tolist()
    [image] = ids_of("<image>")
    before_tile = len(ids_of("<fake_token_around_image><global-img>"))
    inserted = ids_of("<fake_token_around_image><row_1_col_1>") + [image] * size + ids_of("\n\n")
    places = [place for place, token in enumerate(ids) if token == image][::size]
    shown: list[int] = []
    written, slot, tile, start = [], 0, 0, 0
    for layout in layouts:
        if isinstance(layout, Frames):
            slot, num_tiles = slot + len(layout.slots), layout.num_tiles
        else:
            end = places[slot] - before_tile
            written += [*ids[start:end], *inserted]
            start, slot, num_tiles = end, slot + 1, 1
            shown.append(tile)
        shown += range(tile, tile + num_tiles)
        tile += num_tiles
    new_ids = torch.tensor([[*written, *ids[start:]]])
    changed = {"input_ids": new_ids, "attention_mask": torch.ones_like(new_ids)}
    by_tile = [name for name in WANTED[2:] if name in inputs]
    return changed | {name: inputs[name][:, shown] for name in by_tile}


def special_tokens_in(row: Conversation, kept_as_text: Collection[str]) -> list[str]:
    """Return the special tokens that stand in a row's text as words.

    Here they stay words; the stock processor reads them as what they mark (a picture's place, an
    answer's end, an id that the model has no row for), so such a row has no prompt of its that
    could be compared with ours.

    Args:
        row: any conversation.
        kept_as_text: of the encoder.
    """
    texts = [item for turn in row.every_turn for item in turn.blocks if isinstance(item, str)]
    return sorted(token for token in kept_as_text if any(token in text for text in texts))


def averaged_inputs(
    stock: Any, inputs: dict[str, Tensor], *, slot_sizes: Sequence[int]
) -> dict[str, Tensor]:
    """Return what the stock model reads where frames share places: its features, averaged.

    Args:
        stock: the model.
        inputs: of one row, as `stock_inputs` gives them.
        slot_sizes: how many of the row's tiles each place shows the mean of.
    """
    tile_features = stock.model.get_image_features(
        inputs["pixel_values"], inputs.get("pixel_attention_mask"), return_dict=True
    ).pooler_output
    # (tile, token, hidden)
    features = torch.cat(list(tile_features)).unflatten(0, (sum(slot_sizes), -1))
    means = torch.stack([tiles.mean(dim=0) for tiles in features.split(list(slot_sizes))])
    embeddings = stock.get_input_embeddings()(inputs["input_ids"])
    places = (inputs["input_ids"] == stock.config.image_token_id)[..., None]
    return {
        "inputs_embeds": embeddings.masked_scatter(places, means.to(embeddings.dtype)),
        "attention_mask": inputs["attention_mask"],
    }


def _with_clips(
    processor: Any, row: Conversation, *, layouts: Sequence[Layout], settings: MediaSettings
) -> dict[str, Tensor]:
    """Return the tensors of a row that has a clip.

    The ids come from one pass, the pixels from one for each medium: in one pass a clip's pixels
    would take the place of the pictures' (transformers 5.23), and clips of several lengths be
    padded with black frames.
    """
    media = [
        open_rgb(medium, max_pixels=settings.max_image_pixels)
        if isinstance(medium, ImageRef)
        else _stock_clip(medium, layout, settings)
        for medium, layout in zip(row.media, layouts, strict=True)
    ]
    said = [
        _said_clip(medium[0], layout)
        for medium, layout in zip(media, layouts, strict=True)
        if isinstance(medium, tuple) and isinstance(layout, Frames)
    ]
    images = [medium for medium in media if not isinstance(medium, tuple)]
    text = _stock_text(processor, row)
    inputs = processor(
        text=text,
        images=[images] if images else None,
        videos=[frames for frames, _ in said],
        images_kwargs=_picture_settings(settings),
        videos_kwargs=_clip_settings([facts for _, facts in said], settings),
        return_tensors="pt",
    )
    pixels = [
        processor.video_processor(
            [medium[0]], **_clip_settings([medium[1]], settings), return_tensors="pt"
        )
        if isinstance(medium, tuple)
        else processor.image_processor(
            [[medium]], **_picture_settings(settings), return_tensors="pt"
        )
        for medium in media
    ]
    ids = {name: inputs[name] for name in WANTED[:2]}
    return ids | {"pixel_values": torch.cat([part["pixel_values"] for part in pixels], dim=1)}


def _messages(row: Conversation) -> list[dict[str, object]]:
    def block(item: str | Media) -> dict[str, str]:
        if isinstance(item, str):
            return {"type": "text", "text": item}
        return {"type": "video" if isinstance(item, VideoRef) else "image"}

    return [
        {"role": turn.role, "content": [block(item) for item in turn.blocks]} for turn in row.turns
    ]


def _picture_settings(settings: MediaSettings) -> dict[str, object]:
    pictures = settings.pictures
    return {
        "do_image_splitting": pictures.image_splitting is True,
        "size": {"longest_edge": pictures.longest_edge_px},
    }


def _clip_settings(facts: "Sequence[VideoMetadata]", settings: MediaSettings) -> dict[str, object]:
    return {
        "do_sample_frames": False,
        "video_metadata": list(facts),
        "size": {"longest_edge": settings.frame_tiles.longest_edge_px},
    }


def _stock_clip(
    clip: VideoRef, frames: Layout, settings: MediaSettings
) -> tuple[Tensor, "VideoMetadata"]:
    """Return a clip's shown frames, (frame, 3, height, width) uint8, and their metadata."""
    assert isinstance(frames, Frames)
    edge = settings.frame_tiles.longest_edge_px
    pixels = [
        torch.from_numpy(frame.copy()).permute(2, 0, 1)
        for frame in read_frames(
            clip,
            frames,
            max_side_px=edge,
            backend=settings.video_backend,
            max_image_pixels=settings.max_image_pixels,
        )
    ]
    return torch.stack(pixels), _facts(frames)


def _said_clip(pixels: Tensor, frames: Frames) -> tuple[Tensor, "VideoMetadata"]:
    """Return the frames that the text names, the first of each group that is averaged."""
    firsts = [tiles[0] for tiles in frames.slots]
    numbers, times_s = (
        tuple(column[first] for first in firsts) for column in (frames.numbers, frames.times_s)
    )
    return pixels[firsts], _facts(replace(frames, numbers=numbers, times_s=times_s))


def _facts(frames: Frames) -> "VideoMetadata":
    from transformers.video_utils import VideoMetadata

    # It takes a frame's time for its number over the rate: numbers at one frame a second are times.
    return VideoMetadata(
        total_num_frames=frames.num_tiles,
        fps=1.0,
        duration=frames.duration_s,
        frames_indices=cast("list[int]", list(frames.times_s)),
    )


def _for_video(processor: Processor, settings: MediaSettings) -> Any:
    """Return the processor, or one of its parts that knows video where it does not.

    Processors of the first models' class know none.
    """
    if hasattr(processor, "video_processor"):
        return processor
    from transformers.models.smolvlm import SmolVLMProcessor, SmolVLMVideoProcessor

    images = processor.image_processor
    videos = SmolVLMVideoProcessor(
        size={"longest_edge": settings.frame_tiles.longest_edge_px},
        max_image_size=dict(images.max_image_size),
        image_mean=list(images.image_mean),
        image_std=list(images.image_std),
    )
    return SmolVLMProcessor(
        images,
        processor.tokenizer,
        videos,
        image_seq_len=processor.image_seq_len,
        chat_template=processor.chat_template,
    )
