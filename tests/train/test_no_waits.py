"""A step never waits for the device: forward, backward and the losses of packs of every kind, seen
operation by operation on a device that is not there. And how many operations that takes, which is
time on a GPU.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint, load_checkpoint
from smolvlm.config.method import DpoMethod
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.columns import PlannedPack, PlannedPacks
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.pack import Pack, on_device
from smolvlm.datasets.packing.plan import Plan
from smolvlm.model.cpu_choices import STOCK_CHOICES, using_choices
from smolvlm.records import Conversation, ImageRef, Turn, VideoRef
from smolvlm.train.master_weights import MasterWeights
from smolvlm.train.methods.method import Method, Preference, Supervised
from smolvlm.train.methods.online_reference import OnlineReference, frozen_copy
from tests.memory_rows import measured_rows
from tests.waits import Waits, WaitsFound, fake_cuda, inputs_for, on_meta

ALL = {"vision_tower": 1e-5, "connector": 1e-4, "language_model": 1e-4}
LANGUAGE = {"connector": 1e-4, "language_model": 1e-4}
METHODS: dict[str, Method] = {
    "sft": Supervised(),
    **{
        kind: Preference(settings=DpoMethod(loss_type=kind, beta=0.1, sft_weight=0.5))
        for kind in ("sigmoid", "robust", "hinge", "ipo", "simpo", "orpo")
    },
}

PackOf = Callable[..., Pack]


@pytest.fixture(scope="module")
def loaded(checkpoint_folders: dict[ModelType, Path]) -> Checkpoint:
    return load_checkpoint(str(checkpoint_folders["smolvlm"]))


@pytest.fixture
def model(loaded: Checkpoint) -> Any:
    return copy.deepcopy(loaded.model)


@pytest.fixture(scope="module")
def rows(
    photos: dict[str, Path], clips: dict[str, Path]
) -> dict[str, list[tuple[Conversation, ...]]]:
    """Samples by kind: text alone, a tree of questions about a picture, clips, pairs of answers."""
    photo, clip = ImageRef(path=photos["coffee"]), VideoRef(path=clips["steady"])

    def asked(*blocks: Any, answer: str, rejected: str | None = None) -> Conversation:
        other = () if rejected is None else (Turn(role="user", blocks=blocks), _says(rejected))
        turns = (Turn(role="user", blocks=blocks), _says(answer))
        return Conversation(turns=turns, rejected=other, where="rows:1", source="rows")

    tree = tuple(asked(photo, f"Question {n}?", answer="A cup." * (n + 1)) for n in range(3))
    return {
        "text": [(asked("Two and two?", answer="Four."),)],
        "tree": [tree, (asked("Two and two?", answer="Four."),)],
        "clips": [
            (asked(clip, "What?", answer="Coffee."),),
            (asked(photo, clip, "And?", answer="Both."),),
        ],
        "one question": [(asked(photo, "What?", answer="A cup."),)],
        "pairs": [
            (asked(photo, "What?", answer="A cup.", rejected="Nothing at all."),),
            (asked("Two and two?", answer="Four.", rejected="5"),),
        ],
    }


def _says(text: str) -> Turn:
    return Turn(role="assistant", blocks=(text,))


@pytest.fixture(scope="module")
def pack_of(rows: dict[str, list[tuple[Conversation, ...]]], prompt: PromptSettings) -> PackOf:
    """Makes a pack of a kind; `read_features` as the vision cache gives them."""

    def make(kind: str, **settings: Any) -> Pack:
        samples = rows[kind]
        flat = [row for sample in samples for row in sample]
        starts = np.cumsum([0, *(len(sample) for sample in samples)]).tolist()
        planned = PlannedPack(
            samples=tuple(tuple(range(a, b)) for a, b in pairwise(starts)),
            num_tokens=0,
            num_tiles=0,
        )
        shown = replace(
            prompt, media=replace(prompt.media, frames=replace(prompt.media.frames, max_frames=4))
        )
        dataset = PackDataset(
            measured_rows(flat, shown),
            Plan(
                packs=PlannedPacks.of([planned]),
                packs_per_step=1,
                epoch_ends=(1,),
                budget=Budget(max_tokens=4096, max_tiles=256),
            ),
            encoder=shown.encoder(),
            settings=shown.media,
            options=PackOptions(**settings),
        )
        if kind == "pairs":
            dataset.reference_logps = np.full((len(flat), 2), -7.0, np.float32)
        return dataset[0]

    return make


def features_of(model: Any, pack: Pack, *, how_many: int) -> Callable[[Any], list[Any]]:
    """Return what a cache would give that knows the first tiles of a pack."""
    vision = model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    known = dict.fromkeys(pack.tile_keys[:how_many], torch.zeros(patches, vision.hidden_size))
    return lambda keys: [known.get(key) for key in keys]


def packs_for(model: Any, pack_of: PackOf, method: str) -> Iterator[tuple[Pack, dict[str, float]]]:
    """Yield packs and the rates they are trained at: a trained tower, a frozen one without and with
    the cache."""
    for kind in ("text", "tree", "clips") if method == "sft" else ("pairs",):
        pack = pack_of(kind)
        yield pack, ALL
        yield pack, LANGUAGE
        if len(pack.tiles):
            yield (
                pack_of(kind, read_features=features_of(model, pack, how_many=len(pack.tiles))),
                LANGUAGE,
            )
            yield pack_of(kind, read_features=features_of(model, pack, how_many=13)), LANGUAGE


@pytest.mark.parametrize("method", METHODS)
def test_forward_and_loss_never_wait_for_a_gpu(
    model: Any, pack_of: PackOf, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [(inputs_for(pack, "cuda"), rates) for pack, rates in packs_for(model, pack_of, method)]
    with fake_cuda(monkeypatch) as cuda:
        moved = cuda.model(model)
        for inputs, rates in cases:
            freeze(moved, LearningRates(full=rates))
            tensors = cuda.inputs(inputs)
            with WaitsFound("cuda") as found:
                output = moved(pack=tensors, normalizer=3.0, loss_of=METHODS[method].loss)
            assert output.loss.device.type == "cuda"
            assert output.loss.requires_grad
            assert found.counts["flex_attention"] == 2, "one a layer"


@pytest.mark.parametrize(
    ("kind", "kernel"), [("one question", "torch_attn._varlen_attn"), ("tree", "flex_attention")]
)
def test_varlen_attention_never_waits_either(
    model: Any, pack_of: PackOf, kind: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_for(pack_of(kind), "cuda", is_varlen=True)
    with fake_cuda(monkeypatch) as cuda:
        moved, tensors = cuda.model(model), cuda.inputs(inputs)
        with WaitsFound("cuda") as found:
            output = moved(pack=tensors, normalizer=3.0)
        assert output.loss.device.type == "cuda"
        called = [number for name, number in found.counts.items() if name.startswith(kernel)]
        assert called == [2], "one a layer"


@pytest.mark.parametrize("method", ["sft", "sigmoid", "orpo"])
def test_backward_never_waits_for_the_device(model: Any, pack_of: PackOf, method: str) -> None:
    cases = list(packs_for(model, pack_of, method))
    moved = on_meta(model)
    for pack, rates in cases:
        freeze(moved, LearningRates(full=rates))
        tensors = on_device(inputs_for(pack, "meta"), torch.device("meta"))
        with WaitsFound("meta"):
            moved(pack=tensors, normalizer=3.0, loss_of=METHODS[method].loss).loss.backward()
        assert all(value.grad is not None for value in moved.lm_head.parameters())


def test_a_rank_without_pictures_does_not_wait_either(model: Any, pack_of: PackOf) -> None:
    pack = pack_of("text")
    moved = on_meta(model)
    moved.touches_vision = True
    tensors = on_device(inputs_for(pack, "meta"), torch.device("meta"))
    with WaitsFound("meta"):
        moved(pack=tensors, normalizer=3.0).loss.backward()
    assert all(value.grad is not None for value in moved.model.vision_model.encoder.parameters())


@pytest.mark.parametrize("has_frozen_tower", [True, False])
def test_the_reference_asked_in_the_step_does_not_wait(
    model: Any, pack_of: PackOf, has_frozen_tower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_for(pack_of("pairs"), "cuda")
    freeze(model, LearningRates(full=LANGUAGE if has_frozen_tower else ALL))
    copied = frozen_copy(model)
    with fake_cuda(monkeypatch) as cuda:
        moved, copied = cuda.model(model), cuda.model(copied)
        reference = OnlineReference(
            copied=copied, has_frozen_tower=has_frozen_tower, compute_dtype=torch.float32
        )
        tensors = cuda.inputs(inputs)
        with WaitsFound("cuda"):
            judged = reference.judge(moved, tensors)
            output = moved(pack=judged.tensors, normalizer=2.0, loss_of=METHODS["sigmoid"].loss)
        assert output.loss.requires_grad
        assert len(judged.tensors["reference_logps"]) == 4


@pytest.mark.parametrize("waits", ["places", "groups", "plan", "pixels"])
def test_what_used_to_wait_is_found(
    model: Any, pack_of: PackOf, waits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is put back, or looks as it did."""
    tensors = on_device(inputs_for(pack_of("tree"), "meta"), torch.device("meta"))
    moved = on_meta(model)
    if waits == "plan":
        tensors["attention"] = None
    stock = type(moved).forward_pack

    def as_before(self: Any, pack: Any, *rest: Any) -> Any:
        if waits == "places":
            pack = {**pack, "image_places": (pack["input_ids"] == 5).nonzero().squeeze(1)}
        if waits == "groups":
            int(pack["target_groups"].max())
        if waits == "pixels":
            torch.tensor([0.5, 0.5, 0.5]).to(pack["tiles"].device)
        return stock(self, pack, *rest)

    monkeypatch.setattr(type(moved), "forward_pack", as_before)
    # "meta" itself raises NotImplementedError where a tensor's values are asked for.
    with (
        WaitsFound("meta"),
        pytest.raises(
            (Waits, NotImplementedError), match=r"reads back|a copy from|copy out of meta"
        ),
    ):
        moved(pack=tensors, normalizer=1.0)


# ---- how many operations


def operations(
    config_changes: dict[str, dict[str, int]],
    loaded: Checkpoint,
    pack: Pack,
    *,
    is_half: bool,
    has_masters: bool,
) -> int:
    """Count what a pack's forward and backward dispatch, everything trained, in a model of so many
    layers; with masters also what brings them their gradients, but for what makes room."""
    config = copy.deepcopy(loaded.model.config)
    for name, changes in config_changes.items():
        for key, value in changes.items():
            setattr(getattr(config, name), key, value)
    model = type(loaded.model)(config)
    model.set_pixel_scaling(loaded.model.pixel_scaling)
    model.use_scope_attention()
    masters = MasterWeights(model) if has_masters else None
    tensors = inputs_for(pack, "cpu")
    found = WaitsFound("none")
    # As a GPU computes: not in the ways of a CPU.
    with (
        using_choices(STOCK_CHOICES),
        found,
        torch.autocast("cpu", torch.bfloat16, enabled=is_half),
    ):
        loss = model(pack=tensors, normalizer=3.0).loss
    with found:
        loss.backward()
    if masters is None:
        return found.counts.total()
    with WaitsFound("none") as adding:
        masters.add_gradients()
    return found.counts.total() + adding.counts.total() - adding.counts["aten.empty_like.default"]


@pytest.mark.parametrize(
    ("is_half", "has_masters", "language_layer", "tower_layer", "rest"),
    [(False, False, 107, 38, 85), (True, False, 141, 72, 116), (True, True, 127, 48, 115)],
    ids=["float32", "autocast", "master weights"],
)
def test_a_step_dispatches_no_more_operations_than_it_did(
    loaded: Checkpoint,
    pack_of: PackOf,
    is_half: bool,
    has_masters: bool,
    language_layer: int,
    tower_layer: int,
    rest: int,
) -> None:
    """A GPU takes 5 to 8 us to launch each; at 256M widths that is most of a step. Lower what
    fell.

    Of what is not a layer, 11 belong to the fused loss: five make room and launch nothing. In half
    precision a CPU makes the head's gradient in slices, which a GPU does not: 12 more."""
    pack = pack_of("one question")

    def count(language: int, tower: int) -> int:
        layers = {
            "text_config": {"num_hidden_layers": language},
            "vision_config": {"num_hidden_layers": tower},
        }
        return operations(layers, loaded, pack, is_half=is_half, has_masters=has_masters)

    one = count(1, 1)
    found = (count(2, 1) - one, count(1, 2) - one)
    print(found, one - sum(found))
    assert found[0] <= language_layer
    assert found[1] <= tower_layer
    assert one - sum(found) <= rest
