"""Packs on demand: item i is the i-th pack of the plan, as tensors.

In: measured rows, the plan, an encoder and the tile settings. Out: `Pack`s. A data-loader worker
does all of it: encode the texts, read the pictures, ask the vision cache, decode and cut what it
lacks. The same picture twice in a pack, under whatever name, is decoded and encoded once. Which
item holds what depends on the plan alone, so it is the same for any number of workers.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import Dataset

from smolvlm.datasets.encoding.encode import Encoder
from smolvlm.datasets.packing.columns import PlannedPack, PlannedPacks, Rows
from smolvlm.datasets.packing.lengths import HeaderReader
from smolvlm.datasets.packing.measured import MeasuredSet
from smolvlm.datasets.packing.pack import Pack
from smolvlm.datasets.packing.plan import Plan, sample_size
from smolvlm.datasets.packing.row_digests import MediaState, media_state
from smolvlm.datasets.packing.tiles import ReadFeatures, TileLoader
from smolvlm.datasets.rows.skipped import BadSamples, Policy
from smolvlm.errors import SampleError, located
from smolvlm.media.decode_time import decoding
from smolvlm.media.medium import CHANGED_FIX
from smolvlm.media.settings import MediaSettings
from smolvlm.model.attention.plan import PlanAttention
from smolvlm.records import Conversation, Example, Layout, Sample, SkippedRow


@dataclass(frozen=True, kw_only=True, slots=True)
class PackOptions:
    """How packs are handed out; the defaults hand out the plan's packs as they stand."""

    order: Sequence[int] | Int64[np.ndarray, " pack"] | None = None
    """Pack numbers in the order they are handed out (`deal_to_ranks`); None is the plan's order."""
    read_features: ReadFeatures | None = None
    """The vision cache, where the tower is frozen."""
    plan_attention: PlanAttention | None = None
    """For the device that the packs go to; without it the forward pass plans each pack itself."""
    reshape: Callable[[Pack], Pack] | None = None
    """Makes of each pack what is handed out: this rank's share, where several ranks hold it
    together, or the pack padded to a size that comes up again; plans attention itself."""
    on_bad_sample: Policy = "error"
    """What happens to a picture whose pixels turn out corrupt; a source's own setting goes before
    it."""


class PackDataset(Dataset[Pack]):
    """The packs of a plan."""

    def __init__(
        self,
        measured: MeasuredSet,
        plan: Plan,
        *,
        encoder: Encoder,
        settings: MediaSettings,
        options: PackOptions = PackOptions(),
    ) -> None:
        """
        Args:
            measured: the rows.
            plan: which of them meet in which pack.
            encoder: of the checkpoint.
            settings: how pictures are cut and clips shown; those the rows were measured with.
            options: in which order, from which cache and for which device.
        """
        self.measured = measured
        self.plan = plan
        self.sources = measured.conversations.source_names
        self._source_numbers = {source: number for number, source in enumerate(self.sources)}
        self.encoder = encoder
        self.settings = settings
        self.options = options
        order = options.order
        self.order = np.arange(len(plan.packs)) if order is None else np.asarray(order)
        self._headers = HeaderReader(settings)
        self.reference_logps: Float32[np.ndarray, "row 2"] | None = None
        """Of preference rows: (better, worse) answer under the reference model; goes into the packs
        where it is set."""

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Pack:
        return self.build(self.planned(index))

    @property
    def planned_packs(self) -> PlannedPacks:
        """All packs in the order they are handed out."""
        return self.plan.packs.reordered(self.order)

    def planned(self, index: int) -> PlannedPack:
        """Return what item `index` is made of."""
        return self.plan.packs[int(self.order[index])]

    def where(self, row: int) -> str:
        """Return a row's `file:row`."""
        return self.measured.conversations.where(row)

    def example(self, rows: Rows) -> Example:
        """Return one sample as arrays; no pixel is touched.

        Raises:
            SampleError: a row or a picture's header changed since it was measured.
        """
        return self._encoded(rows, tuple(self.measured.conversations[row] for row in rows))

    def _encoded(self, rows: Rows, conversations: tuple[Conversation, ...]) -> Example:
        layouts = [self.layouts(row) for row in conversations]
        example = self.encoder.encode(Sample(conversations=conversations), layouts=layouts)
        planned = sample_size(rows, self.measured.lengths)
        if (len(example.input_ids), len(example.tiles)) != planned:
            raise SampleError(
                f"{len(example.input_ids)} tokens and {len(example.tiles)} tiles, {planned[0]} and "
                f"{planned[1]} were "
                "planned",
                kind="changed_row",
                fix=CHANGED_FIX,
            )
        return example

    def layouts(self, row: Conversation) -> tuple[Layout, ...]:
        """Return what is shown of a row's pictures and clips."""
        with located(row.where):
            return self._headers.layouts(row.media)

    def build(
        self, planned: PlannedPack, *, begin_sample: Callable[[int], None] = lambda _: None
    ) -> Pack:
        """Return a planned pack as tensors.

        Args:
            planned: which rows.
            begin_sample: called with the number of each sample before it is read.

        Raises:
            SampleError: a picture is corrupt or changed since it was measured, under
                `on_bad_sample: error`.
        """
        began = time.perf_counter()
        loader = TileLoader(self.settings, self.options.read_features)
        raised = BadSamples(policy="error")
        bad = BadSamples(policy="skip", max_fraction=1.0)
        examples: list[Example] = []
        states: list[MediaState] = []
        kept: list[int] = []
        for number, rows in enumerate(planned.samples):
            begin_sample(number)
            caught = raised if self._raises(rows) else bad
            loaded = caught.attempt(lambda: self._loaded(rows, loader), where=self.where(rows[0]))  # noqa: B023 - called at once
            if loaded is not None:
                examples.append(loaded[0])
                states += loaded[1]
                kept += rows
            elif caught is bad:
                reason = bad.skipped.pop().reason
                bad.skipped += [SkippedRow(where=self.where(row), reason=reason) for row in rows]
        raised.settle()
        pack = self._join(examples, kept, loader, bad, states)
        loader.times.total_s = time.perf_counter() - began
        return pack if self.options.reshape is None else self.options.reshape(pack)

    def _raises(self, rows: Rows) -> bool:
        """Say whether an error of a sample ends the run: one of its rows is enough for that."""
        policies = map(self.measured.conversations.own_policy, rows)
        return any((policy or self.options.on_bad_sample) == "error" for policy in policies)

    def _loaded(self, rows: Rows, loader: TileLoader) -> tuple[Example, list[MediaState]]:
        limit_s = self.settings.max_decode_s * len(rows)
        with decoding(limit_s, where=self.where(rows[0])):
            conversations = tuple(self.measured.conversations[row] for row in rows)
            example = self._encoded(rows, conversations)
            loader.add_example(example)
            states = [
                media_state(row, conversation.media, loader.medium_key)
                for row, conversation in zip(rows, conversations, strict=True)
            ]
        return example, [state for state in states if state is not None]

    def _join(
        self,
        examples: Sequence[Example],
        rows: Sequence[int],
        loader: TileLoader,
        bad: BadSamples,
        states: Sequence[MediaState],
    ) -> Pack:
        sizes = [len(example.input_ids) for example in examples]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)[: len(examples)]
        pairs = list(zip(examples, offsets, strict=True))
        source_of = [
            np.array([self._source_numbers[source] for source in example.sources]).take(
                example.target_conversation
            )
            for example in examples
        ]
        num_groups = [len(example.where) for example in examples]
        first_groups = np.concatenate([[0], np.cumsum(num_groups)]).astype(np.int64)[
            : len(examples)
        ]
        reference = None
        if self.reference_logps is not None:
            reference = torch.from_numpy(self.reference_logps[list(rows)].reshape(-1))
        blank = np.full(0 if examples else 1, self.encoder.tokens.pad)
        input_ids = _joined([blank, *(example.input_ids for example in examples)])
        scope_end = _joined(
            [blank * 0 + 1, *(example.scope_end + offset for example, offset in pairs)]
        )
        target_groups = _joined(
            [
                example.target_conversation + first
                for example, first in zip(examples, first_groups, strict=True)
            ]
        )
        plan_attention = self.options.plan_attention
        return Pack(
            input_ids=input_ids,
            position_ids=_joined([blank * 0, *(example.position_ids for example in examples)]),
            scope_end=scope_end,
            attention=plan_attention(scope_end.numpy()) if plan_attention else None,
            image_places=(input_ids == self.encoder.tokens.image).nonzero().squeeze(1),
            predict_from=_joined([example.predict_from + offset for example, offset in pairs]),
            target_ids=_joined([example.target_ids for example in examples]),
            target_weights=_joined([example.target_weights for example in examples]).float(),
            target_sources=_joined(source_of),
            target_groups=target_groups,
            group_sizes=torch.bincount(target_groups, minlength=sum(num_groups)),
            reference_logps=reference,
            tiles=loader.tiles(),
            tile_keys=tuple(loader.tile_keys),
            cached_features=loader.cached_features(),
            slot_tiles=loader.slot_tiles(),
            slot_sizes=loader.slot_sizes(),
            where=tuple(map(self.where, rows)),
            media_states=tuple(states),
            budget_tokens=self.plan.budget.max_tokens,
            skipped=tuple(bad.skipped),
            times=loader.times,
        )


SupervisedDataset = PackDataset
"""The name that users of the earlier toolkit look for."""


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    if not arrays:
        return torch.zeros(0, dtype=torch.long)
    joined = np.concatenate(arrays)
    return torch.from_numpy(joined if joined.dtype.kind == "f" else joined.astype(np.int64))
