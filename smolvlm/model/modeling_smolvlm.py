"""The stock models with one more way in: a forward over packs.

`model(pack={...}, normalizer=...)` returns the pack's share of the step's loss; every other call is
the stock class's. Subclassing keeps checkpoints, generation and every tool that knows the stock
classes working: the classes here bear the stock names, add no parameter, and save what the stock
classes load.
"""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from smolvlm.model.attention.dense import TILE_ATTENTION
from smolvlm.model.attention.rule import SCOPE_ATTENTION, make_scope
from smolvlm.model.checkpointing import WITH_LAYERS, keep_activations
from smolvlm.model.context_ranks.group import ContextGroup
from smolvlm.model.context_ranks.share import TileExchange
from smolvlm.model.loss import LossOf, mean_of_pack, pack_loss
from smolvlm.model.packed_tower import packed_tower
from smolvlm.model.slot_means import slot_means
from smolvlm.model.stock_classes import STOCK_CLASSES
from smolvlm.model.towers import Tower
from smolvlm.model.vision import (
    PixelScaling,
    channel_values,
    run_tower,
    scale_pixels,
    tile_positions,
    tower_modules,
)
from smolvlm.protocols import VisionConfig, VisionLanguageModel

PATCHES_PER_CALL = {"cpu": 2048}
"""A frozen tower sees tiles of so many patches at once, by device type: on a CPU what fits its
caches is fastest."""
DEFAULT_PATCHES_PER_CALL = 16384
"""On other devices: activations stay small, and more at once is no faster."""


if TYPE_CHECKING:
    from transformers import SmolVLMForConditionalGeneration as _Stock
else:
    _Stock = object  # the stock class of either family comes in by `_with_packs`


@dataclass
class PackOutput(ModelOutput):
    """What a pack's forward returns."""

    loss: Tensor | None = None
    """The pack's share of the step's loss."""
    target_losses: Tensor | None = None
    """(target,) negative log-likelihoods, detached."""
    metrics: Mapping[str, Tensor] | None = None
    """Sums over the pack that the method logs, detached."""
    computed_features: Tensor | None = None
    """(tile, ..., width) features of the pack's tiles as the cache stores them, detached; None
    without tiles."""


class PackedTraining(_Stock):
    """What both families' classes gain.

    Call `set_pixel_scaling` (of the processor) before a pack with tiles comes.
    """

    pixel_scaling: PixelScaling
    channel_bits: Int[Tensor, "2 3 1 1"]
    """Mean and std of each channel, float32, as integers of the same bits: `model.to(dtype)` leaves
    these alone."""
    tile_positions: Int[Tensor, "1 patch"]
    caches_connector: bool = False
    """Whether cached features are the connector's (both frozen) rather than the tower's."""
    touches_vision: bool = False
    """Whether a pack without tiles still runs tower and connector: set where ranks must agree on
    gradients."""
    checkpointed_towers: Collection[Tower] = WITH_LAYERS
    """Those whose activations are computed again where activation checkpointing is on."""
    context_group: ContextGroup | None = None
    """The ranks that hold each pack together with this one."""

    def set_pixel_scaling(self, scaling: PixelScaling) -> None:
        """Keep pixel scaling and the places of a tile's patches as buffers.

        They follow the model from device to device and are not saved: a checkpoint's processor says
        the same. Anything else that a step made of Python's numbers would have to be copied to the
        device, which waits.
        """
        self.pixel_scaling = scaling
        vision = _vision_config(self)
        channels = torch.stack([channel_values(scaling.mean), channel_values(scaling.std)])
        positions = tile_positions(vision.image_size // vision.patch_size)
        self.register_buffer(
            "channel_bits", channels.view(torch.int32).to(self.device), persistent=False
        )
        self.register_buffer("tile_positions", positions.to(self.device), persistent=False)

    def forward_pack(
        self,
        pack: Mapping[str, Any],
        normalizer: Tensor | float,
        loss_of: LossOf | None = None,
    ) -> PackOutput:
        """Return the loss of one pack.

        Args:
            pack: `PackTensors` by name, on the model's device.
            normalizer: sum of target weights over the whole optimizer step, or what `loss_of`
                divides by.
            loss_of: makes the loss of the targets' losses; None is their weighted mean.
        """
        hidden, computed = self.pack_hidden_states(pack)
        loss, losses, metrics = pack_loss(
            hidden, self.lm_head, pack, normalizer=normalizer, loss_of=loss_of or mean_of_pack
        )
        return PackOutput(
            loss=loss,
            target_losses=losses.detach(),
            metrics=metrics or None,
            computed_features=computed,
        )

    def pack_hidden_states(
        self, pack: Mapping[str, Any]
    ) -> tuple[Float[Tensor, "seq hidden"], Tensor | None]:
        """Return the language model's last hidden states, and features for the cache."""
        input_ids = pack["input_ids"]
        embeddings = self.get_input_embeddings()(input_ids)
        slots = (pack["slot_tiles"], pack.get("slot_sizes"))
        share, group = pack.get("context"), self.context_group
        if share is None:
            features, computed = self.image_features(pack["tiles"], pack["cached_features"], *slots)
            scope = make_scope(pack["scope_end"], pack.get("attention"))
        else:
            assert group is not None, "only a rank of a context group gets a share of a pack"
            features, computed = self.shared_image_features(
                pack["tiles"], pack["cached_features"], slots, share.exchange
            )
            scope = group.scope(share)
        if features is not None:
            places, flat = pack["image_places"], features.flatten(0, 1).to(embeddings.dtype)
            if share is not None and share.exchange is not None:
                flat = flat.index_select(0, share.exchange.image_rows)
            embeddings = (
                embeddings.index_copy(0, places, flat)
                if len(places)
                else embeddings + 0 * flat.sum()
            )
        output = self.model.text_model(
            inputs_embeds=embeddings[None],
            position_ids=pack["position_ids"][None],
            # Nobody reads this mask. Any of four dimensions is handed on as it is; with none given
            # transformers (5.23) takes the restarting positions for packed sequences and builds a
            # mask of seq x seq.
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeddings.device),
            use_cache=False,
            scope=scope,
        )
        return output.last_hidden_state[0], computed

    def image_features(
        self,
        tiles: Tensor,
        cached: Tensor | None,
        slot_tiles: Tensor,
        slot_sizes: Tensor | None = None,
    ) -> tuple[Float[Tensor, "slot tokens hidden"] | None, Tensor | None]:
        """Return each slot's features, and the tiles' new features as the cache stores them.

        Args:
            tiles, cached, slot_tiles, slot_sizes: as in a `Pack`; frames that share a slot are
                averaged after the connector, so that what is cached is each frame's own.
        """
        if not len(slot_tiles):
            return (self._blank_features() if self.touches_vision else None), None
        features, computed = self._tile_features(tiles, cached, slot_tiles)
        return _slot_features(features, slot_sizes), computed

    def shared_image_features(
        self,
        tiles: Tensor,
        cached: Tensor | None,
        slots: tuple[Tensor, Tensor | None],
        exchange: TileExchange | None,
    ) -> tuple[Float[Tensor, "slot tokens hidden"] | None, Tensor | None]:
        """Return the features of the slots that this rank shows, and its tiles' new features.

        A rank that encodes nothing runs a blank tile, so that it takes part in the exchange, and
        in the step's gradients.

        Args:
            tiles, cached: those that this rank encodes.
            slots: (slot_tiles, slot_sizes), counted in the features that it gets.
            exchange: None where no rank of the group shows anything.
        """
        if exchange is None:
            return (self._blank_features() if self.touches_vision else None), None
        assert self.context_group is not None
        features, computed = (
            (self._blank_features(), None)
            if cached is None and not len(tiles)
            else self._tile_features(tiles, cached, None)
        )
        # One type on all ranks, whichever of them the cache had something for.
        received = self.context_group.exchange(features.to(self.dtype), exchange)
        slot_tiles, slot_sizes = slots
        return _slot_features(received.index_select(0, slot_tiles), slot_sizes), computed

    def _blank_features(self) -> Float[Tensor, "1 tokens hidden"]:
        """Return the features of a blank tile: nothing shows them, and their gradient is zero."""
        side = _vision_config(self).image_size
        blank = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=self.device)
        return tower_modules(self)[1](self.tower_features(blank))

    def _tile_features(
        self, tiles: Tensor, cached: Tensor | None, shown: Tensor | None
    ) -> tuple[Float[Tensor, "shown tokens hidden"], Tensor | None]:
        """Return the connector's features of tiles, and what was computed, as the cache stores it.

        A connector that trains sums its gradient over what is shown, in the order of the prompts:
        which tiles the cache had, a matter of chance where workers read ahead, changes no bit.

        Args:
            tiles, cached: at least one of them is not empty.
            shown: rows of both, those of `tiles` first; None is all.
        """
        _, connector = tower_modules(self)
        computed = self.tower_features(tiles) if len(tiles) else None
        if computed is not None and self.caches_connector:
            computed = connector(computed)
        parts = [part for part in (computed, cached) if part is not None]
        features = (
            torch.cat([part.to(parts[0].dtype) for part in parts]) if len(parts) > 1 else parts[0]
        )
        if shown is not None:
            features = features.index_select(0, shown)
        if not self.caches_connector:
            features = connector(features.to(self.dtype) if computed is None else features)
        return features, None if computed is None else computed.detach()

    def tower_features(self, tiles: Tensor) -> Float[Tensor, "tile patch width"]:
        """Return the tower's features of uint8 tiles; no gradient where it is frozen."""
        tower, _ = tower_modules(self)
        is_trained = any(parameter.requires_grad for parameter in tower.parameters())
        mean, std = self.channel_bits.view(torch.float32)
        factor = self.pixel_scaling.rescale_factor
        pixel_values = scale_pixels(tiles, factor, mean=mean, std=std, dtype=self.dtype)
        if is_trained and torch.is_grad_enabled():
            return run_tower(tower, pixel_values, self.tile_positions)
        packed = None if is_trained else packed_tower(tower, self.dtype)
        with torch.no_grad():
            return torch.cat(
                [
                    run_tower(tower, part, self.tile_positions, packed)
                    for part in pixel_values.split(self.tiles_per_call)
                ]
            )

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        *args: Any,
        **settings: Any,
    ) -> None:
        """Switch it on as the stock class does, but in `checkpointed_towers` alone, and let
        gradients end where nothing beneath trains.

        The stock class makes the embeddings' output need a gradient, for the reentrant kind alone
        (transformers 5.23).
        """
        super().activation_checkpointing_enable(activation_checkpointing_kwargs, *args, **settings)
        keep_activations(self, but_of=self.checkpointed_towers)
        if (
            activation_checkpointing_kwargs is None
            or activation_checkpointing_kwargs.get("use_reentrant") is False
        ):
            self.disable_input_require_grads()

    @property
    def tiles_per_call(self) -> int:
        """How many tiles a frozen tower sees at once."""
        vision = _vision_config(self)
        patches = (vision.image_size // vision.patch_size) ** 2
        return max(1, PATCHES_PER_CALL.get(self.device.type, DEFAULT_PATCHES_PER_CALL) // patches)

    def use_scope_attention(self) -> None:
        """Let the language model attend by scopes, and the tower by `TILE_ATTENTION`."""
        self.set_attn_implementation(
            {"text_config": SCOPE_ATTENTION, "vision_config": TILE_ATTENTION}
        )


def _slot_features(shown: Tensor, slot_sizes: Tensor | None) -> Float[Tensor, "slot tokens hidden"]:
    """Return what each slot shows: a tile's features, or the mean of several."""
    return shown if slot_sizes is None else slot_means(shown, slot_sizes)


def _vision_config(model: PackedTraining) -> VisionConfig:
    """Return the tower's settings; transformers (5.23) types them as any configuration."""
    return cast("VisionConfig", model.config.vision_config)


def _with_packs(stock: type[nn.Module]) -> type[VisionLanguageModel]:
    """Return a subclass of a stock class, under its name, whose forward also takes a pack."""

    @functools.wraps(stock.forward)
    def forward(
        self: Any,
        *args: Any,
        pack: Mapping[str, Any] | None = None,
        normalizer: Tensor | float = 1.0,
        loss_of: LossOf | None = None,
        **kwargs: Any,
    ) -> Any:
        if pack is not None:
            return self.forward_pack(pack, normalizer, loss_of)
        return stock.forward(self, *args, **kwargs)

    attributes = {"forward": forward, "__module__": __name__}
    packed = type(stock.__name__, (PackedTraining, stock), attributes)
    return cast("type[VisionLanguageModel]", packed)


MODEL_CLASSES: Mapping[str, type[VisionLanguageModel]] = {
    name: _with_packs(stock) for name, stock in STOCK_CLASSES.items()
}
SmolVLMForConditionalGeneration = MODEL_CLASSES["smolvlm"]
Idefics3ForConditionalGeneration = MODEL_CLASSES["idefics3"]
