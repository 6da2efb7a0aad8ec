"""Data sets of Hugging Face, saved or from the hub: memory-mapped Arrow files."""

from typing import Any

from smolvlm.datasets.rows.row_table import RowTable
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import SampleError


class SavedTable(RowTable):
    """Rows of a Hugging Face data set, in Arrow files already; media are bytes or paths."""

    def __init__(self, dataset: Any, *, label: str) -> None:
        super().__init__(label=label)
        self.identity_of_rows = str(dataset._fingerprint)
        self._dataset = dataset.with_format("arrow")

    @property
    def identity(self) -> str:
        return self.identity_of_rows

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> object:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._dataset[index].to_pylist()[0]


def open_saved(spec: SourceSpec) -> RowTable:
    """Open a folder that `save_to_disk` wrote, or a data set of the hub (downloaded once)."""
    import datasets

    try:
        dataset: Any = (
            datasets.load_dataset(spec.label, split=spec.split or "train")
            if spec.format == "hub"
            else datasets.load_from_disk(str(spec.path))
        )
    except (OSError, ValueError, RuntimeError) as error:
        fix = (
            "check the name, the split and the network"
            if spec.format == "hub"
            else "save the data set anew"
        )
        raise SampleError(
            f"cannot be opened: {error}", kind="bad_file", where=spec.label, fix=fix
        ) from None
    if isinstance(dataset, datasets.DatasetDict):
        split = spec.split or ("train" if "train" in dataset else next(iter(dataset), ""))
        if split not in dataset:
            raise SampleError(
                f"no split {split!r}",
                kind="bad_file",
                where=spec.label,
                fix=f"set `split` to one of {', '.join(map(str, dataset))}",
            )
        dataset = dataset[split]
    if not len(dataset):
        fix = "take the source out of the mixture"
        raise SampleError("the data set has no rows", kind="bad_file", where=spec.label, fix=fix)
    return SavedTable(dataset, label=spec.label)
