"""How fast a device computes: named ones by their makers' figures, this machine by measuring it.

Out: a `Device`: rates by kind of operation, memory, watts. A named device's rates are peak rates
times what training reaches of them (`PRODUCT_SHARE`, `BANDWIDTH_SHARE`): assumptions, said with
every plan that rests on them. Sources: NVIDIA's data sheets of each product (dense rates, without
sparsity); H200: 788 TFLOP/s in bfloat16 and 4.3 TB/s, measured on one by this project.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from smolvlm.config.suggestions import did_you_mean
from smolvlm.errors import ConfigError
from smolvlm.plan.trace import OpKind

PRODUCT_SHARE = 0.5
"""Of the peak rate that products of matrices reach at the family's widths."""
BANDWIDTH_SHARE = 0.7
"""Of the peak bandwidth that operations on whole tensors reach."""
LAUNCH_S = 6e-6
"""What an operation takes to be launched on a GPU (5 to 8 us, counted and estimated)."""
CONTEXT_BYTES = 600 * 10**6
"""What a CUDA context and its libraries take of a GPU's memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What one type of numbers is computed at; each a second."""

    product_flops: float
    attention_flops: float
    attention_backward_flops: float
    gelu_bytes: float
    special_bytes: float
    unpack_bytes: float
    plain_bytes: float

    def of(self, kind: OpKind) -> float:
        """Return the rate of a kind of operation: FLOPs or bytes a second."""
        rates: dict[OpKind, float] = {
            "product": self.product_flops,
            "attention": self.attention_flops,
            "attention_backward": self.attention_backward_flops,
            "gelu": self.gelu_bytes,
            "special": self.special_bytes,
            "unpack": self.unpack_bytes,
            "plain": self.plain_bytes,
        }
        return rates[kind]


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One processor that trains."""

    name: str
    rates: Mapping[torch.dtype, Rates]
    optimizer_bytes: float
    """Bytes a second that the optimizer's step reads and writes."""
    fresh_bytes: float | None
    """Bytes a second at which new pages are mapped; None where memory is kept."""
    operation_s: float
    """What each operation costs besides."""
    is_overlapped: bool
    """Whether operations are launched ahead of their computing."""
    memory_bytes: int | None
    """None is not known."""
    watts: float | None
    threads: int = 1
    """Of a CPU: what the rates are shared by; they are those of one thread's CPU time."""
    has_bf16: bool = False
    """Whether a run computes in bfloat16 by default."""
    measured_at: float | None = None
    """When its rates were measured, seconds since 1970; None are its maker's figures."""

    @property
    def is_cpu(self) -> bool:
        return self.fresh_bytes is not None

    def rates_for(self, dtype: torch.dtype) -> Rates:
        """Return the rates of a type; of one that is not known, float32's."""
        return self.rates.get(dtype, self.rates[torch.float32])


def _gpu(
    name: str, bf16_tflops: float, fp32_tflops: float, tb_per_s: float, gb: float, watts: float
) -> Device:
    plain = tb_per_s * 1e12 * BANDWIDTH_SHARE

    def rates(tflops: float) -> Rates:
        products = tflops * 1e12 * PRODUCT_SHARE
        return Rates(
            product_flops=products,
            attention_flops=products,
            attention_backward_flops=products,
            gelu_bytes=plain,
            special_bytes=plain,
            unpack_bytes=plain,
            plain_bytes=plain,
        )

    return Device(
        name=name,
        rates={torch.bfloat16: rates(bf16_tflops), torch.float32: rates(fp32_tflops)},
        optimizer_bytes=plain,
        fresh_bytes=None,
        operation_s=LAUNCH_S,
        is_overlapped=True,
        memory_bytes=int(gb * 1e9),
        watts=watts,
        has_bf16=bf16_tflops > 0,
    )


NAMED: Mapping[str, Device] = {
    device.name: device
    for device in (
        _gpu("H200", 788, 67, 4.3, 141, 700),
        _gpu("H100", 989, 67, 3.35, 80, 700),
        _gpu("A100-80GB", 312, 19.5, 2.04, 80, 400),
        _gpu("A100-40GB", 312, 19.5, 1.555, 40, 400),
        _gpu("A800", 312, 19.5, 2.04, 80, 400),
        _gpu("L40S", 362, 91.6, 0.864, 48, 350),
        _gpu("L4", 121, 30.3, 0.3, 24, 72),
        _gpu("RTX-4090", 165, 82.6, 1.008, 24, 450),
    )
}
"""By name: TFLOP/s in bfloat16 and float32, TB/s, GB, watts."""


def named_device(name: str) -> Device:
    """Return a device of `NAMED`, capitals aside.

    Raises:
        ConfigError: there is none of this name.
    """
    found = {key.lower(): device for key, device in NAMED.items()}.get(name.lower())
    if found is None:
        known = f"known are {', '.join(NAMED)}; without --device this machine is measured"
        fix = did_you_mean(name, NAMED) or known
        raise ConfigError("no such device is known", where=f"--device {name}", fix=fix)
    return found
