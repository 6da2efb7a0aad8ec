"""The run file's `freeze` as parameters' names, checked against the checkpoint's settings.

In: the section, and the model's configuration, for the number of layers and whether the head is
tied. Out: parts of towers, as beginnings of names. Layers are [first, end); with the last one goes
the norm behind it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from smolvlm.config.freeze import FreezeConfig
from smolvlm.errors import ConfigError
from smolvlm.model.towers import Tower
from smolvlm.protocols import VisionLanguageConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenPart:
    """Part of a tower that stays as it is."""

    tower: Tower
    words: str
    """What it is called in the printed table."""
    prefixes: tuple[str, ...]
    """What the full names of its parameters begin with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stack:
    """A tower: its layers, the norm behind them, and what stands around."""

    tower: Tower
    ends: Mapping[str, tuple[str, str]]
    """Setting -> (words, beginning of the names)."""
    layers_setting: str
    num_layers: int
    layers: str
    norm: str

    @property
    def words(self) -> str:
        return self.tower.replace("_", " ")

    def frozen(self, freeze: FreezeConfig) -> tuple[FrozenPart, ...]:
        """Return what of this tower is frozen.

        Raises:
            ConfigError: it has not so many layers, or nothing of it is left to train.
        """
        parts = [
            FrozenPart(tower=self.tower, words=words, prefixes=(prefix,))
            for setting, (words, prefix) in self.ends.items()
            if getattr(freeze, setting)
        ]
        layers: list[int] | None = getattr(freeze, self.layers_setting)
        if layers is not None:
            parts.append(self._frozen_layers(*layers))
        if sum(len(part.prefixes) for part in parts) == len(self.ends) + self.num_layers + 1:
            what = f"every part of the {self.words} is frozen, and it has a learning rate"
            raise ConfigError(
                what,
                where="freeze",
                fix=f"set train.{self.tower}_lr: 0 instead, or leave a part out",
            )
        return tuple(parts)

    def _frozen_layers(self, first: int, end: int) -> FrozenPart:
        if end > self.num_layers:
            what = f"[{first}, {end}] goes beyond the {self.num_layers} layers of the {self.words}"
            fix = f"layers count from 0: write an end of {self.num_layers} at most"
            raise ConfigError(what, where=f"freeze.{self.layers_setting}", fix=fix)
        names = tuple(f"{self.layers}{number}." for number in range(first, end))
        return FrozenPart(
            tower=self.tower,
            words=f"layers {first} to {end - 1} of {self.num_layers}",
            prefixes=(*names, self.norm) if end == self.num_layers else names,
        )


def frozen_parts(
    freeze: FreezeConfig, model_config: VisionLanguageConfig
) -> tuple[FrozenPart, ...]:
    """Return what is frozen inside towers.

    Args:
        model_config: the checkpoint's.

    Raises:
        ConfigError: a tower has not so many layers; the head is tied to the embeddings and only one
            of the two is to be frozen; or nothing of a tower is left to train.
    """
    if model_config.tie_word_embeddings and freeze.embeddings != freeze.output_head:
        what = "the checkpoint ties the output head to the embeddings: they are one matrix"
        fix = "set freeze.embeddings and freeze.output_head both, or neither"
        raise ConfigError(
            what, where="freeze.embeddings" if freeze.embeddings else "freeze.output_head", fix=fix
        )
    language = _Stack(
        tower="language_model",
        ends={
            "embeddings": ("embeddings", "model.text_model.embed_tokens."),
            "output_head": ("output head", "lm_head."),
        },
        layers_setting="language_layers",
        num_layers=model_config.text_config.num_hidden_layers,
        layers="model.text_model.layers.",
        norm="model.text_model.norm.",
    )
    vision = _Stack(
        tower="vision_tower",
        ends={"vision_embeddings": ("embeddings", "model.vision_model.embeddings.")},
        layers_setting="vision_layers",
        num_layers=model_config.vision_config.num_hidden_layers,
        layers="model.vision_model.encoder.layers.",
        norm="model.vision_model.post_layernorm.",
    )
    return (*language.frozen(freeze), *vision.frozen(freeze))
