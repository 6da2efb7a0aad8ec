"""Packs written by hand."""

from dataclasses import fields
from typing import Any

import torch

from smolvlm.datasets.packing.pack import Pack

_NOTHING = {int: 0, Any: None}


def pack_of(**values: Any) -> Pack:
    """Return a pack with these fields, and nothing in all others."""
    return Pack(**{field.name: _nothing(field.type) for field in fields(Pack)} | values)


def _nothing(kind: Any) -> Any:
    if hasattr(kind, "dims"):  # a tensor's type
        return torch.zeros([0 for _ in kind.dims], dtype=getattr(torch, kind.dtypes[0]))
    return _NOTHING.get(kind, () if "tuple" in str(kind) else None)
