"""A padded pack trains what the pack itself trains: loss, gradients, features and counts."""

import copy
import random
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint, load_checkpoint
from smolvlm.config.method import DpoMethod
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.buckets import PackBuckets
from smolvlm.datasets.packing.columns import EMPTY_PACK, PlannedPack, PlannedPacks
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.pack import Pack
from smolvlm.datasets.packing.plan import Plan
from smolvlm.model.attention.flex import plan_flex
from smolvlm.model.attention.sdpa import plan_sdpa
from smolvlm.records import Conversation, ImageRef, Turn, VideoRef
from smolvlm.train.batch import as_batch
from smolvlm.train.late_features import with_late_features
from smolvlm.train.methods.dpo import Preference
from smolvlm.train.methods.sft import Supervised
from tests.memory_rows import measured_rows

ALL = {"vision_tower": 1e-5, "connector": 1e-4, "language_model": 1e-4}
FROZEN_TOWER = {"connector": 1e-4, "language_model": 1e-4}
LOSSES = ("sigmoid", "robust", "hinge", "ipo", "simpo", "orpo")
CLOSE = {"rtol": 1e-6, "atol": 1e-9}
"""In float64, where nothing but the order of sums may differ."""


@pytest.fixture(scope="module")
def model(checkpoint_folders: dict[Any, Path]) -> Any:
    loaded: Checkpoint = load_checkpoint(str(checkpoint_folders["smolvlm"]))
    return copy.deepcopy(loaded.model).double()


class Rows:
    """Draws samples: texts, pictures, several pictures, clips, trees, pairs."""

    def __init__(self, photos: dict[str, Path], clips: dict[str, Path]) -> None:
        self._photos = [ImageRef(path=photos[name]) for name in ("coffee", "rocket")]
        self._clip = VideoRef(path=clips["steady"])

    def sample(self, kind: str, draw: random.Random) -> tuple[Conversation, ...]:
        blocks = {
            "text": (),
            "picture": (draw.choice(self._photos),),
            "pictures": tuple(self._photos),
            "clip": (self._clip,),
            "tree": (draw.choice(self._photos),),
            "pair": (draw.choice(self._photos),) * draw.randint(0, 1),
        }[kind]
        size = draw.randint(2, 4) if kind == "tree" else 1
        return tuple(self._row(blocks, draw, is_pair=kind == "pair") for _ in range(size))

    def _row(self, blocks: tuple[Any, ...], draw: random.Random, *, is_pair: bool) -> Conversation:
        def words() -> str:
            return " ".join(
                draw.choices(("a", "cup", "seven", "rockets", "2"), k=draw.randint(1, 9))
            )

        asked = Turn(role="user", blocks=(*blocks, f"What {words()}?"))
        answers = [Turn(role="assistant", blocks=(text,)) for text in (words(), f"No {words()}")]
        return Conversation(
            turns=(asked, answers[0]),
            rejected=(asked, answers[1]) if is_pair else (),
            where="rows:1",
            source="rows",
        )


@pytest.fixture(scope="module")
def rows(photos: dict[str, Path], clips: dict[str, Path]) -> Rows:
    return Rows(photos, clips)


def dataset_of(
    samples: list[tuple[Conversation, ...]], prompt: PromptSettings, **options: Any
) -> PackDataset:
    """One pack of these samples; without any, the empty one."""
    flat = [row for sample in samples for row in sample]
    starts = np.cumsum([0, *(len(sample) for sample in samples)]).tolist()
    numbers = tuple(tuple(range(a, b)) for a, b in pairwise(starts))
    planned = PlannedPack(samples=numbers, num_tokens=0, num_tiles=0) if samples else EMPTY_PACK
    dataset = PackDataset(
        measured_rows(flat, prompt),
        Plan(
            packs=PlannedPacks.of([planned]),
            packs_per_step=1,
            epoch_ends=(1,),
            budget=Budget(max_tokens=4096, max_tiles=256),
        ),
        encoder=prompt.encoder(),
        settings=prompt.media,
        options=PackOptions(**options),
    )
    if all(row.rejected for row in flat):
        dataset.reference_logps = np.linspace(-9, -5, 2 * len(flat), dtype=np.float32).reshape(
            -1, 2
        )
    return dataset


def trained(model: Any, pack: Pack, method: Any, rates: dict[str, float]) -> dict[str, Tensor]:
    """Everything that a step takes from a pack: loss, metrics, features, gradients."""
    freeze(model, LearningRates(full=rates))
    model.zero_grad()
    tensors = pack.model_tensors()
    share = method.share(as_batch([pack])["info"])
    output = model(pack=tensors, normalizer=max(share, 1e-12), loss_of=method.loss)
    if output.loss.requires_grad:
        output.loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    found |= {f"metric {name}": value for name, value in (output.metrics or {}).items()}
    if output.computed_features is not None:
        found["features"] = output.computed_features[: len(pack.tile_keys)]
    found["losses"] = output.target_losses[: pack.num_targets]
    return {name: value.clone() for name, value in (found | {"loss": output.loss.detach()}).items()}


def check_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, **CLOSE, msg=lambda text, at=name: f"{at}: {text}"
        )


def with_buckets(pack: Pack, prompt: PromptSettings) -> Pack:
    return PackBuckets(pad_id=prompt.tokens.pad, plan_attention=plan_sdpa)(pack)


def shown(prompt: PromptSettings, *, average: int = 1) -> PromptSettings:
    frames = replace(prompt.media.frames, max_frames=5, average_frames=average)
    return replace(prompt, media=replace(prompt.media, frames=frames))


@given(
    kinds=st.lists(st.sampled_from(["text", "picture", "pictures", "clip", "tree"]), max_size=4),
    seed=st.integers(0, 2**16),
    average=st.sampled_from([1, 2]),
    rates=st.sampled_from([ALL, FROZEN_TOWER]),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_learned_from_a_padded_pack_is_what_is_learned_from_the_pack(
    model: Any,
    rows: Rows,
    prompt: PromptSettings,
    kinds: list[str],
    seed: int,
    average: int,
    rates: dict[str, float],
) -> None:
    draw, settings_of = random.Random(seed), shown(prompt, average=average)
    pack = dataset_of([rows.sample(kind, draw) for kind in kinds], settings_of)[0]
    padded = with_buckets(pack, prompt)
    method = Supervised()
    check_equal(trained(model, padded, method, rates), trained(model, pack, method, rates))


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("num_pairs", [0, 1, 3])
def test_preferences_are_not_touched_either(
    model: Any, rows: Rows, prompt: PromptSettings, loss_type: Any, num_pairs: int
) -> None:
    draw = random.Random(num_pairs)
    method = Preference(settings=DpoMethod(loss_type=loss_type, beta=0.1, sft_weight=0.5))
    pack = dataset_of([rows.sample("pair", draw) for _ in range(num_pairs)], prompt)[0]
    padded = with_buckets(pack, prompt)
    assert padded.padding.num_targets > 0 or not num_pairs
    check_equal(trained(model, padded, method, ALL), trained(model, pack, method, ALL))


def known_features(model: Any, pack: Pack, *, how_many: int) -> dict[bytes, Tensor]:
    with torch.no_grad():
        computed = model.tower_features(pack.tiles)
    return dict(zip(pack.tile_keys[:how_many], computed, strict=False))


@pytest.fixture
def of_pictures(rows: Rows, prompt: PromptSettings) -> list[tuple[Conversation, ...]]:
    return [rows.sample(kind, random.Random(3)) for kind in ("pictures", "clip", "text")]


@pytest.mark.parametrize("share", [0.8, 1.0])  # whole pictures, or all
def test_neither_are_packs_whose_features_were_kept(
    model: Any, of_pictures: Any, prompt: PromptSettings, share: float
) -> None:
    freeze(model, LearningRates(full=FROZEN_TOWER))
    whole = dataset_of(of_pictures, shown(prompt))[0]
    known = known_features(model, whole, how_many=int(share * len(whole.tiles)))
    read = {"read_features": lambda keys: [known.get(key) for key in keys]}
    pack = dataset_of(of_pictures, shown(prompt), **read)[0]
    assert pack.cached_features is not None
    padded = with_buckets(pack, prompt)
    method = Supervised()
    check_equal(
        trained(model, padded, method, FROZEN_TOWER), trained(model, pack, method, FROZEN_TOWER)
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_features_that_come_late_go_to_the_slots_of_rows(
    model: Any, of_pictures: Any, prompt: PromptSettings, share: float
) -> None:
    freeze(model, LearningRates(full=FROZEN_TOWER))
    pack = dataset_of(of_pictures, shown(prompt))[0]
    padded = with_buckets(pack, prompt)
    assert padded.padding.num_tiles > 0
    known = known_features(model, pack, how_many=int(share * len(pack.tiles)))
    batch = as_batch([padded])
    late, info = with_late_features(
        batch["pack"], batch["info"], lambda keys: [known.get(key) for key in keys]
    )
    assert info.num_computed_tiles == len(info.tile_keys) == len(pack.tiles) - len(known)
    assert (len(late["tiles"]) == 0) == (share == 1.0)
    names = ("tiles", "cached_features", "slot_tiles", "slot_sizes")
    with torch.no_grad():
        found, _ = model.image_features(*(late[name] for name in names))
        expected, _ = model.image_features(*(getattr(pack, name) for name in names))
    torch.testing.assert_close(found[: len(expected)], expected, **CLOSE)


def test_padding_is_counted_nowhere(of_pictures: Any, rows: Rows, prompt: PromptSettings) -> None:
    for samples in (of_pictures, [], [rows.sample("pair", random.Random(0))]):
        pack = dataset_of(samples, shown(prompt))[0]
        padded = with_buckets(pack, prompt)
        counted, expected = (as_batch([each])["info"] for each in (padded, pack))
        assert counted == expected
        assert padded.num_tokens == pack.num_tokens
        assert padded.num_groups == pack.num_groups


def test_a_token_of_padding_sees_itself_alone_and_bears_every_other_padding(
    of_pictures: Any, prompt: PromptSettings
) -> None:
    pack = dataset_of(of_pictures, shown(prompt, average=2))[0]
    padded = with_buckets(pack, prompt)
    count, last = len(pack.input_ids), len(padded.input_ids) - 1
    assert last >= count
    assert torch.equal(padded.scope_end[count:], torch.arange(count, last + 1) + 1)
    assert set(padded.image_places[len(pack.image_places) :].tolist()) <= {last}
    assert set(padded.predict_from[len(pack.predict_from) :].tolist()) <= {last}
    assert padded.slot_sizes is not None
    assert int(padded.slot_sizes.min()) >= 1
    assert int(padded.slot_sizes.sum()) == len(padded.slot_tiles)


def test_every_tensor_has_the_type_and_the_axes_that_its_field_names(
    of_pictures: Any, prompt: PromptSettings
) -> None:
    padded = with_buckets(dataset_of(of_pictures, shown(prompt))[0], prompt)
    axes = {"seq": len(padded.input_ids), "target": len(padded.target_ids)}
    for field in fields(padded):
        value = getattr(padded, field.name)
        if isinstance(value, Tensor):
            assert isinstance(value, field.type), field.name
            size = axes.get(getattr(field.type, "dim_str", "").strip(), value.shape[0])
            assert value.shape[0] == size, field.name


def shapes(pack: Pack) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, value in pack.model_tensors().items():
        if isinstance(value, Tensor) and name not in ("group_sizes", "reference_logps"):
            yield name, tuple(value.shape)
    assert pack.attention is not None
    for number, value in enumerate(pack.attention.tensors()):
        yield f"attention {number}", tuple(value.shape)


def test_packs_of_about_one_size_have_one_shape(rows: Rows, prompt: PromptSettings) -> None:
    """Attention's lists for a GPU too."""
    buckets = PackBuckets(pad_id=prompt.tokens.pad, plan_attention=plan_flex)
    plain, padded = set(), set()
    for seed in range(12):
        draw = random.Random(seed)
        pack = dataset_of([rows.sample("tree", draw), rows.sample("text", draw)], prompt)[0]
        plain.add(tuple(shapes(replace(pack, attention=plan_flex(pack.scope_end.numpy())))))
        padded.add(tuple(shapes(buckets(pack))))
    assert len(padded) < len(plain) / 2
