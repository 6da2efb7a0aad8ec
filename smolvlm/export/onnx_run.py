"""What onnxruntime answers to the prompts of a proof, with the three graphs and their cache.

In: a folder of graphs, and the stock model's inputs. Out: an `Answer` a prompt. It is the loop that
any program around the graphs has: features put where the image tokens stand, then a token a step.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smolvlm.export.onnx_models import DECODER, EMBEDDINGS, VISION, cache_names
from smolvlm.export.proof import MAX_NEW_TOKENS, Answer, top_of
from smolvlm.model.flops import head_width
from smolvlm.protocols import VisionLanguageConfig

PACKAGE = "onnxruntime"


class OnnxModel:
    """Three sessions of onnxruntime on the CPU."""

    def __init__(self, folder: Path, config: VisionLanguageConfig) -> None:
        runtime: Any = import_module(PACKAGE)  # optional
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._sessions = {
            name: runtime.InferenceSession(
                str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for name in (VISION, EMBEDDINGS, DECODER)
        }
        self._config = config

    def answer(self, inputs: Mapping[str, Tensor], *, end_of_turn: int) -> Answer:
        """Answer greedily.

        Args:
            inputs: `input_ids` (1, seq) and `pixel_values` (1, tile, 3, side, side).
            end_of_turn: the token that ends an answer.
        """
        ids = inputs["input_ids"].numpy()
        pixels = inputs["pixel_values"].numpy()
        mask = np.ones((*pixels.shape[:2], *pixels.shape[3:]), dtype=bool)
        [features] = self._run(VISION, pixel_values=pixels, pixel_attention_mask=mask)
        embeddings = self._embeddings(ids)
        places = ids[0] == self._config.image_token_id
        embeddings[0, places] = features.reshape(-1, features.shape[-1])
        past, length = self._empty_cache(), ids.shape[1]
        tokens: list[int] = []
        tops: list[Mapping[int, float]] = []
        while len(tokens) < MAX_NEW_TOKENS:
            new = embeddings.shape[1]
            logits, *present = self._run(
                DECODER,
                inputs_embeds=embeddings,
                attention_mask=np.ones((1, length), dtype=np.int64),
                position_ids=np.arange(length - new, length)[None],
                **past,
            )
            logprobs = torch.from_numpy(logits[0, -1]).log_softmax(-1)
            token = int(logprobs.argmax())
            if token == end_of_turn:
                break
            tokens.append(token)
            tops.append(top_of(logprobs))
            past = dict(zip(past, present, strict=True))
            embeddings = self._embeddings(np.array([[token]]))
            length += 1
        return Answer(
            num_prompt_tokens=ids.shape[1], token_ids=tuple(tokens), top_logprobs=tuple(tops)
        )

    def _embeddings(self, ids: Any) -> Any:
        return self._run(EMBEDDINGS, input_ids=ids.astype(np.int64))[0].copy()

    def _empty_cache(self) -> dict[str, Any]:
        text = self._config.text_config
        shape = (1, text.num_key_value_heads, 0, head_width(text))
        names = cache_names(text.num_hidden_layers)
        return {name: np.zeros(shape, dtype=np.float32) for name in names}

    def _run(self, name: str, **inputs: Any) -> Sequence[Any]:
        return self._sessions[name].run(None, inputs)
