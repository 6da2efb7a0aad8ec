"""Optimizers that keep two sets of weights, and which of them is evaluated and saved.

transformers' loop calls `train()` before every step and `eval()` in its own evaluation. Ours
evaluates and saves by itself, so it calls `rest_optimizer` first, each time.
"""

from typing import Any


def rest_optimizer(optimizer: Any) -> None:
    """Let the weights be those that are evaluated and saved.

    A schedule-free optimizer keeps other weights in the model while it trains: those at which it
    takes gradients. The trainer's next step brings them back. Any other optimizer has no such mode.

    Args:
        optimizer: live, wrapped or not; None before there is one.
    """
    if callable(rest := getattr(optimizer, "eval", None)):
        rest()
