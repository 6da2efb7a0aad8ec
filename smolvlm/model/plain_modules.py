"""Whether a module may be computed without being called."""

from torch import nn


def is_plainly_called(module: nn.Module) -> bool:
    """Say whether calling a module is its class's forward and nothing else (torch 2.14)."""
    hooks = (
        *(module._forward_pre_hooks, module._forward_hooks),
        *(module._backward_pre_hooks, module._backward_hooks),
    )
    return "forward" not in vars(module) and not any(hooks)
