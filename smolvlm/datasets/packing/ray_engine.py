"""Measuring over a Ray cluster: the function of the local engine, for corpora beyond one machine.

Needs the extra `ray`. Every node must see the files of rows and the pictures under the same paths.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.part_meter import Part, PartMeter
from smolvlm.datasets.rows.conversations import OpenSource
from smolvlm.errors import ConfigError


class _RayMeter:
    """An actor; Ray sends rows of plain values and gets such back."""

    def __init__(self, sources: Sequence[OpenSource], prompt: PromptSettings) -> None:
        self._meter = PartMeter(sources, prompt)

    def __call__(self, part: dict[str, Any]) -> dict[str, object]:
        sizes = self._meter(
            Part(source=part["source"], rows=np.array(part["rows"], np.int32), file=None)
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, sizes.schema) as writer:
            writer.write_table(sizes)
        return {"number": part["number"], "sizes": sink.getvalue().to_pybytes()}


def measured_over_ray(
    parts: Sequence[tuple[int, Part]], sources: Sequence[OpenSource], prompt: PromptSettings
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (number, sizes) of parts as they are done, in any order.

    Connects to the cluster that `RAY_ADDRESS` names, or starts one on this machine.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f"--engine ray: {error}", fix="pip install 'smolvlm[ray]', or use the local engine"
        ) from None
    if not parts:
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [
        {"number": number, "source": part.source, "rows": part.rows.tolist()}
        for number, part in parts
    ]
    workers = max(1, min(len(items), int(ray.cluster_resources().get("CPU", 1))))
    meter: Any = _RayMeter  # Ray builds it in the actor
    measured = ray.data.from_items(items, override_num_blocks=len(items)).map(
        meter,
        fn_constructor_args=(tuple(sources), prompt),
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    for row in measured.iter_rows():
        yield int(row["number"]), pa.ipc.open_stream(row["sizes"]).read_all()
