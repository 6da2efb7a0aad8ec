"""Attention over some of the keys, merged with that over others.

In: attended values and the log of the summed exponentials of each. Out: the same over both:
exp(log_sum) weighs them. Exact, in whatever order.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Attended = tuple[Float[Tensor, "... query head"], Float[Tensor, "... query"]]
"""Attended values, and the log of the summed exponentials: minus infinity where no key is seen."""


def merged(one: Attended, other: Attended) -> Attended:
    """Return what two sets of keys give together; in the log sums' type."""
    log_sum = torch.logaddexp(one[1], other[1])
    safe = log_sum.masked_fill(log_sum == float("-inf"), 0.0)
    weights = (torch.exp(part - safe)[..., None] for part in (one[1], other[1]))
    values = [part[0] * weight for part, weight in zip((one, other), weights, strict=True)]
    return values[0] + values[1], log_sum
