"""Mixtures: both shapes, where files are looked for, and every problem in one error."""

from pathlib import Path

import pytest
import yaml

from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.sources import Sampling, parse_sampling
from smolvlm.errors import ConfigError


def test_a_bare_list_and_groups_of_lists_give_the_same_sources(folder: Path) -> None:
    entries = [{"json_path": "a.json"}, {"json_path": "b.jsonl", "sampling_strategy": "first:10%"}]
    as_list = load_mixture(entries, base_dir=folder)
    assert as_list == load_mixture({"one": entries[:1], "two": entries[1:]}, base_dir=folder)
    assert [source.name for source in as_list] == ["a", "b"]
    assert [source.sampling for source in as_list] == [Sampling(), parse_sampling("first:10%")]


def test_a_file_is_found_from_the_base_and_its_sources_from_its_own_folder(folder: Path) -> None:
    (folder / "sub" / "mix.yaml").write_text(
        "images:\n  - {json_path: a.json, path: ../pictures}\n"
    )
    (source,) = load_mixture("sub/mix.yaml", base_dir=folder)
    assert source.path == folder / "sub" / "a.json"
    assert source.label == "a.json"
    assert source.media_root.resolve() == folder / "pictures"


def test_sources_that_share_a_name_are_numbered(folder: Path) -> None:
    sources = load_mixture(
        [{"json_path": "a.json"}, {"json_path": "sub/a.json"}, {"path": "b.jsonl"}], base_dir=folder
    )
    assert [source.name for source in sources] == ["a", "a#2", "b"]


def test_all_problems_are_reported_at_once(folder: Path) -> None:
    entries = [
        {"json_path": "a.json", "sampling_stratgy": "all"},
        {"json_path": "gone.json", "repeat": 0},
        {
            "json_path": "a.json",
            "modality": "pictures",
            "on_bad_sample": "skp",
            "columns": {"qestion": "q"},
        },
        "a.json",
        {"name": "empty"},
        {"json_path": "a.json", "sampling_strategy": "frist:1", "seed": True, "name": 3},
    ]
    (folder / "mix.yaml").write_text(yaml.safe_dump({"group": entries}))
    with pytest.raises(ConfigError) as caught:
        load_mixture("mix.yaml", base_dir=folder)
    text = str(caught.value)
    assert text.startswith("mix.yaml: 11 problems:")
    for part in (
        "group[0].sampling_stratgy = 'all': unknown key; did you mean `sampling_strategy`?",
        "group[1].json_path = 'gone.json': no such file: ",
        "/gone.json; check the path",
        "group[1].repeat = 0: must be a number above 0",
        "group[2].modality = 'pictures': must be one of text, image, multiimage, video",
        "group[2].on_bad_sample = 'skp': must be one of error, skip; did you mean `skip`?",
        "`qestion` is no column that rows are read from; did you mean `question`?",
        "group[3] = 'a.json': a source is a mapping; write `json_path: FILE`",
        "group[4].json_path: missing: a source needs its file of rows",
        "group[5].sampling_strategy = 'frist:1': unknown sampling strategy 'frist:1'",
        "group[5].seed = true: must be a whole number, at least 0",
        "group[5].name = 3: must be text; quote it",
    ):
        assert part in text


@pytest.mark.parametrize("content", ["text", {"json_path": "a.json"}, [], {}, 3])
def test_another_shape_is_refused(folder: Path, content: object) -> None:
    (folder / "mix.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(
        ConfigError,
        match="fix: write a list of sources, or a mapping of group name -> list of sources",
    ):
        load_mixture(folder / "mix.yaml", base_dir=folder)


def test_a_source_has_a_metric_or_several(folder: Path) -> None:
    entries = [{"path": "a.json", "metric": "anls"}, {"path": "b.jsonl", "metric": ["iou", "bleu"]}]
    assert [
        one.metrics for one in load_mixture([*entries, {"path": "a.json"}], base_dir=folder)
    ] == [
        ("anls",),
        ("iou", "bleu"),
        (),
    ]


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        ("anl", r"\[0\]\.metric = 'anl': `anl` is no metric of answers; did you mean `anls`\?"),
        (["anls", "wer"], r"`wer` is no metric of answers; the metrics are exact_match, .*"),
        ([], r"must be a metric, or a list of them; write `metric: anls`"),
        (3, r"must be a metric, or a list of them"),
    ],
)
def test_an_unknown_metric_is_refused(folder: Path, metric: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_mixture([{"path": "a.json", "metric": metric}], base_dir=folder)


def test_a_missing_mixture_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
        load_mixture("gone.yaml", base_dir=tmp_path)


def test_weights_are_for_all_sources_or_none(folder: Path) -> None:
    both = load_mixture(
        [{"path": "a.json", "weight": 1}, {"path": "b.jsonl", "weight": 2.5}], base_dir=folder
    )
    assert [source.weight for source in both] == [1.0, 2.5]
    with pytest.raises(ConfigError, match="some sources have a `weight`, and b has none"):
        load_mixture([{"path": "a.json", "weight": 1}, {"path": "b.jsonl"}], base_dir=folder)
