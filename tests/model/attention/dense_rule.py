"""Random packs, and the rule written out over all pairs: what every back end is held to."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from smolvlm.datasets.encoding.tree import visible

HEADS, KEY_HEADS, HEAD_SIZE, SCALE = 4, 2, 8, 0.3

Node = tuple[int, list]
"""A tree: tokens of its own, and the trees that branch off after them."""

nodes = st.recursive(
    st.tuples(st.integers(1, 12), st.just([])),
    lambda children: st.tuples(st.integers(1, 9), st.lists(children, max_size=4)),
    max_leaves=8,
)
packs = st.lists(nodes, min_size=1, max_size=5)


def size_of(node: Node) -> int:
    return node[0] + sum(size_of(child) for child in node[1])


def scope_end_of(pack: list[Node]) -> np.ndarray:
    ends: list[int] = []

    def lay(node: Node) -> None:
        ends.extend([len(ends) + size_of(node)] * node[0])
        for child in node[1]:
            lay(child)

    for node in pack:
        lay(node)
    return np.array(ends)


def states(
    length: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(1, heads, length, HEAD_SIZE, dtype=dtype, generator=generator).requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    return query, key, value


def dense(query: Tensor, key: Tensor, value: Tensor, scope_end: np.ndarray) -> Tensor:
    """The rule written out over all pairs, softmax by hand."""
    key, value = (states.repeat_interleave(HEADS // KEY_HEADS, dim=1) for states in (key, value))
    scores = query @ key.transpose(2, 3) * SCALE
    scores = scores.masked_fill(~torch.from_numpy(visible(scope_end)), float("-inf"))
    return scores.softmax(dim=-1) @ value


def forward_and_gradients(attend, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    output = attend(*inputs)
    upstream = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return [output, *torch.autograd.grad((output * upstream).sum(), inputs)]
