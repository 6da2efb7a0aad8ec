"""A key that stands twice in one object, wherever JSON is read."""

import io
import tarfile
from pathlib import Path

import pytest

from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.tables import open_table
from smolvlm.errors import SampleError

TWICE = '{"question": "q", "answer": "x", "answer": "y"}'
WITHIN = '{"messages": [{"role": "user", "role": "assistant", "content": "q"}]}'
GOOD = '{"question": "q", "answer": "x", "deep": [{"a": 1}, {"a": 1}]}'


def write(path: Path, rows: list[str]) -> None:
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as shard:
            for number, row in enumerate(rows):
                member = tarfile.TarInfo(f"{number}.json")
                member.size = len(row)
                shard.addfile(member, io.BytesIO(row.encode()))
    elif path.suffix == ".json":
        path.write_text(f"[{', '.join(rows)}]")
    else:
        path.write_text("\n".join(rows))


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.tar"])
@pytest.mark.parametrize(("row", "key"), [(TWICE, "answer"), (WITHIN, "role")])
def test_neither_value_is_chosen(name: str, row: str, key: str, tmp_path: Path) -> None:
    write(tmp_path / name, [GOOD, row])
    (spec,) = load_mixture([{"path": name}], base_dir=tmp_path)
    table = open_table(spec)
    assert isinstance(table[0], dict)
    with pytest.raises(SampleError, match=f"the key `{key}` stands twice in one object"):
        table[1]
