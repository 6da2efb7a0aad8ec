"""A bench that runs conversations packed through our model, and alone through the stock processor
and class."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.smolvlm import SmolVLMProcessor, SmolVLMVideoProcessor
from transformers.video_utils import VideoMetadata

from smolvlm.build.tiny import tiny_model
from smolvlm.checkpoints.load import load_checkpoint, load_processor, prepare_model
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.encoded import LossWeighting
from smolvlm.datasets.encoding.prompts import PromptSettings, read_prompt_settings
from smolvlm.datasets.packing.columns import PlannedPack, PlannedPacks
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.pack import Pack
from smolvlm.datasets.packing.plan import Plan
from smolvlm.inspect.verify import GRADIENT_TOLERANCE, LOSS_TOLERANCE, gradient_errors
from smolvlm.model.checkpointing import WITH_LAYERS
from smolvlm.records import Conversation, ImageRef, VideoRef
from tests.memory_rows import measured_rows

BUDGET = Budget(max_tokens=100_000, max_tiles=10_000)

Samples = Sequence[tuple[Conversation, ...]]
"""Each one conversation, or several that begin with the same pictures: a tree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What a step gave."""

    loss: float
    gradients: dict[str, Tensor | None]
    """By parameter; None where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Our model and the stock one with the same weights, with the processor of each."""

    ours: Any
    prompts: dict[bool, PromptSettings]
    """By image splitting: what our encoding knows of the processor, read once because that takes a
    second."""
    stock: Any
    processor: Any
    """The stock one, as `AutoProcessor` gives it."""
    image_splitting: bool = True
    weighting: LossWeighting = "token"
    average_frames: int = 1

    @property
    def prompt(self) -> PromptSettings:
        """What our encoding knows of the processor, and does."""
        own = self.prompts[self.image_splitting]
        frames = replace(own.media.frames, average_frames=self.average_frames)
        return replace(own, media=replace(own.media, frames=frames))

    def pack(self, samples: Samples) -> Pack:
        """Return one pack of all samples, by the way that training takes."""
        prompt = self.prompt
        encoder = prompt.encoder(loss_weighting=self.weighting)
        measured = measured_rows([row for sample in samples for row in sample], prompt)
        ends = np.cumsum([len(sample) for sample in samples]).tolist()
        rows = tuple(
            tuple(range(end - len(sample), end)) for sample, end in zip(samples, ends, strict=True)
        )
        planned = PlannedPack(samples=rows, num_tokens=0, num_tiles=0)
        plan = Plan(
            packs=PlannedPacks.of([planned]), packs_per_step=1, epoch_ends=(1,), budget=BUDGET
        )
        return PackDataset(measured, plan, encoder=encoder, settings=prompt.media)[0]

    def packed(self, *packs: Samples) -> Step:
        """Run a step of so many packs through our model."""
        self.ours.zero_grad()
        built = [self.pack(samples) for samples in packs]
        normalizer = sum(float(pack.target_weights.double().sum()) for pack in built)
        total = 0.0
        for pack in built:
            share = self.ours(pack=pack.model_tensors(), normalizer=normalizer).loss
            share.backward()
            total += share.item()
        return Step(loss=total, gradients=_gradients(self.ours))

    def alone(self, *packs: Samples) -> Step:
        """Run a step of the same conversations one by one through the stock classes."""
        self.stock.zero_grad()
        encoded = [
            self.stock_inputs(row) for samples in packs for sample in samples for row in sample
        ]
        counts = [int((inputs["labels"] != -100).sum()) for inputs in encoded]
        weights = [{"token": 1.0, "sample": 1 / n, "sqrt": n**-0.5}[self.weighting] for n in counts]
        normalizer = sum(n * weight for n, weight in zip(counts, weights, strict=True))
        total = 0.0
        for inputs, weight in zip(encoded, weights, strict=True):
            items = torch.tensor(normalizer / weight)
            inputs = {
                name: value.to(self.stock.dtype) if value.is_floating_point() else value
                for name, value in inputs.items()
            }
            if "tiles_of_places" in inputs:
                inputs = self._averaged(inputs)
            loss = self.stock(**inputs, num_items_in_batch=items, use_cache=False).loss
            loss.backward()
            total += loss.item()
        return Step(loss=total, gradients=_gradients(self.stock))

    def check(self, *packs: Samples, alone: Step | None = None) -> None:
        """Hold packs against their conversations alone: the loss, and the gradient of all that
        trains in ours."""
        packed = self.packed(*packs)
        alone = alone or self.alone(*packs)
        assert abs(packed.loss - alone.loss) <= LOSS_TOLERANCE * max(1.0, alone.loss)
        trained = {name for name, value in self.ours.named_parameters() if value.requires_grad}
        expected = {name: gradient for name, gradient in alone.gradients.items() if name in trained}
        errors = gradient_errors(packed.gradients, expected)
        assert max(errors.values()) <= GRADIENT_TOLERANCE, errors

    def stock_inputs(self, row: Conversation) -> dict[str, Tensor]:
        """Return what the stock processor makes of a conversation, with labels found by the stock
        template."""
        kinds = {str: "text", ImageRef: "image", VideoRef: "video"}
        messages = [
            {
                "role": turn.role,
                "content": [
                    {
                        "type": kinds[type(block)],
                        **({"text": block} if isinstance(block, str) else {}),
                    }
                    for block in turn.blocks
                ],
            }
            for turn in row.turns
        ]
        media = [_opened(medium) for medium in row.media]
        inputs = self._encode(messages, media)
        labels = torch.full_like(inputs["input_ids"], -100)
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                begin = self._encode(messages[:number], media, add_generation_prompt=True)[
                    "input_ids"
                ].shape[1]
                end = (
                    self._encode(messages[: number + 1], media)["input_ids"].shape[1] - 1
                )  # but for the newline
                labels[0, begin:end] = inputs["input_ids"][0, begin:end]
        wanted = (
            "input_ids",
            "attention_mask",
            "pixel_values",
            "pixel_attention_mask",
            "tiles_of_places",
        )
        return {"labels": labels} | {name: inputs[name] for name in wanted if name in inputs}

    def _encode(self, messages: list[dict], media: list[Any], **prompt: Any) -> Any:
        text = self.processor.apply_chat_template(messages, **prompt)
        used = media[
            : sum(block["type"] != "text" for message in messages for block in message["content"])
        ]
        clips = [own for own in used if isinstance(own, Tensor)]
        if not used:
            return self.processor(text=text, return_tensors="pt")
        if not clips:
            return self.processor(text=text, images=[used], return_tensors="pt", **self._of_images)
        images = [own for own in used if not isinstance(own, Tensor)]
        inputs = self.processor(
            text=text,
            images=[images] if images else None,
            videos=[own[:: self.average_frames] for own in clips],
            images_kwargs=self._of_images,
            videos_kwargs=_of_videos(clips, step=self.average_frames),
            return_tensors="pt",
        )
        # Asked for both at once, the class hands out the clips' pixels alone.
        pixels = [
            self.processor.video_processor([own], **_of_videos([own]), return_tensors="pt")
            if isinstance(own, Tensor)
            else self.processor.image_processor([[own]], **self._of_images, return_tensors="pt")
            for own in used
        ]
        ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        encoded = ids | {"pixel_values": torch.cat([own["pixel_values"] for own in pixels], dim=1)}
        if self.average_frames > 1:
            pairs = zip(pixels, used, strict=True)
            counts = [
                (own["pixel_values"].shape[1], isinstance(medium, Tensor)) for own, medium in pairs
            ]
            encoded["tiles_of_places"] = torch.tensor(_tiles_of_places(counts, self.average_frames))
        return encoded

    def _averaged(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put the means of the stock model's own features where the image tokens stand, one place
        after the other."""
        features = self.stock.get_image_features(
            inputs["pixel_values"], return_dict=True
        ).pooler_output
        tokens = self.prompt.tokens.tokens_per_tile
        tiles = torch.cat(list(features)).split(tokens)
        embeddings = self.stock.get_input_embeddings()(inputs["input_ids"])[0]
        rows = list(embeddings)
        positions = (
            (inputs["input_ids"][0] == self.prompt.tokens.image).nonzero().flatten().tolist()
        )
        for number, (first, end) in enumerate(inputs["tiles_of_places"].tolist()):
            mean = sum(tiles[first + 1 : end], start=tiles[first]) / (end - first)
            for row, position in zip(
                mean, positions[number * tokens : (number + 1) * tokens], strict=True
            ):
                rows[position] = row
        assert len(positions) == tokens * len(inputs["tiles_of_places"])
        kept = {name: inputs[name] for name in ("labels", "attention_mask")}
        return kept | {"inputs_embeds": torch.stack(rows)[None]}

    @property
    def _of_images(self) -> dict[str, Any]:
        return {"do_image_splitting": self.image_splitting}


def _opened(medium: ImageRef | VideoRef) -> Any:
    """Return a picture; or a clip's frames, one every second, (frame, 3, height, width) uint8."""
    if isinstance(medium, ImageRef):
        return Image.open(io.BytesIO(medium.data or b""))
    frames = [
        np.asarray(Image.open(io.BytesIO(frame.data or b"")).convert("RGB"))
        for frame in medium.frames
    ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def _tiles_of_places(
    media: Sequence[tuple[int, bool]], average_frames: int
) -> list[tuple[int, int]]:
    """Return which tiles (first, end) each place in the text shows, for media of so many tiles,
    clips or not."""
    found: list[tuple[int, int]] = []
    done = 0
    for num_tiles, is_clip in media:
        step, end = average_frames if is_clip else 1, done + num_tiles
        while done < end:
            found.append((done, min(done + step, end)))
            done = found[-1][1]
    return found


def _of_videos(clips: Sequence[Tensor], *, step: int = 1) -> dict[str, Any]:
    """Return what the stock processor is told of clips of one frame a second, of which every
    step-th frame is named."""
    facts = [
        VideoMetadata(
            total_num_frames=len(clip[::step]),
            fps=1.0,
            duration=len(clip),
            frames_indices=list(range(0, len(clip), step)),
        )
        for clip in clips
    ]
    return {"do_sample_frames": False, "video_metadata": facts, "size": {"longest_edge": 32}}


def _with_video(processor: Any) -> Any:
    """Return the processor, or its parts in the class that knows video where the checkpoint's own
    does not."""
    if hasattr(processor, "video_processor"):
        return processor
    images = processor.image_processor
    scaling = {"image_mean": images.image_mean, "image_std": images.image_std}
    videos = SmolVLMVideoProcessor(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, **scaling
    )
    return SmolVLMProcessor(
        images,
        processor.tokenizer,
        videos,
        image_seq_len=processor.image_seq_len,
        chat_template=processor.chat_template,
    )


def _gradients(model: Any) -> dict[str, Tensor | None]:
    return {name: value.grad for name, value in model.named_parameters()}


def make_bench(ours: Any, stock: Any, folder: Path) -> Bench:
    """Return a bench of two models with equal weights and the processor in a folder."""
    own = load_processor(str(folder))
    prepare_model(ours, own)
    whole = read_prompt_settings(own, image_splitting=False)
    split = replace(
        whole,
        media=replace(whole.media, pictures=replace(whole.media.pictures, image_splitting=True)),
    )
    return Bench(
        ours=ours,
        prompts={True: split, False: whole},
        stock=stock,
        processor=_with_video(AutoProcessor.from_pretrained(folder)),
    )


@pytest.fixture(scope="session", name="make_bench")
def make_bench_fixture() -> Callable[[Any, Any, Path], Bench]:
    return make_bench


@pytest.fixture(scope="session", params=["smolvlm", "idefics3"])
def loaded_bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Tiny models of one type, tiles of 32 px, a longest edge of two tiles."""
    folder = tiny_model(
        tmp_path_factory.mktemp("law") / request.param, model_type=request.param, longest_edge_px=64
    )
    ours = load_checkpoint(str(folder)).model
    return make_bench(
        ours, AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32), folder
    )


@pytest.fixture
def bench(loaded_bench: Bench) -> Bench:
    """The tiny models as loaded: everything trains, no activation checkpointing."""
    for model in (loaded_bench.ours, loaded_bench.stock):
        model.eval().requires_grad_(True)
        model.activation_checkpointing_disable()
    loaded_bench.ours.checkpointed_towers = WITH_LAYERS
    return loaded_bench
