"""Means of groups of features: what they should be, in any precision, and their gradients."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.model.slot_means import slot_means

group_sizes = st.lists(st.integers(1, 8), min_size=1, max_size=12)


def features(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 5, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(sizes=group_sizes, seed=st.integers(0, 99))
def test_means_are_those_of_each_group(sizes: list[int], seed: int) -> None:
    given_features = features(sum(sizes), seed)
    means = slot_means(given_features, torch.tensor(sizes))
    expected = torch.stack([own.double().mean(dim=0) for own in given_features.split(sizes)])
    torch.testing.assert_close(means.double(), expected, rtol=0, atol=1e-6)
    for mean, own in zip(means, given_features.split(sizes), strict=True):
        assert len(own) > 1 or torch.equal(mean, own[0]), "a frame by itself keeps its bits"


@settings(deadline=None)
@given(sizes=group_sizes)
def test_gradients_are_shared_out(sizes: list[int]) -> None:
    own = features(sum(sizes)).double().requires_grad_(True)
    weights = features(len(sizes), seed=1).double()
    (slot_means(own, torch.tensor(sizes)) * weights).sum().backward()
    expected = [weights[slot] / size for slot, size in enumerate(sizes) for _ in range(size)]
    torch.testing.assert_close(own.grad, torch.stack(expected), rtol=1e-12, atol=0)


def test_sums_of_half_precision_are_taken_in_float32() -> None:
    """In bfloat16 256 + 1 is 256: a mean of eight such would come out as 32."""
    own = torch.ones(8, 1, 1, dtype=torch.bfloat16)
    own[0] = 256
    mean = slot_means(own, torch.tensor([8]))
    assert mean.dtype == torch.float32
    assert mean.item() == 263 / 8
    assert slot_means(own.double(), torch.tensor([8])).dtype == torch.float64
