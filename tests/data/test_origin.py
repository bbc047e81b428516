"""Whether images are synthetic or real is said by whoever prepares them, and never lost on the way to a datalist."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from monai_fedlora import cli
from monai_fedlora.data.cases import Datalist
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.origin import KINDS, Origin, recognised, together
from monai_fedlora.data.phantom_mark import is_marked
from monai_fedlora.data.pool import pool
from monai_fedlora.data.site import PhantomSettings, phantom_data
from monai_fedlora.errors import ConfigError, DataError

TINY = PhantomSettings(training=4, validation=0, test=0)


def prepared(output: Path, *arguments: str) -> list[Datalist]:
    assert cli.main(["data", *arguments, "--output", str(output)]) == 0
    return [load_datalist(path) for path in sorted(output.glob("*/datalist.json"))]


def phantom_set(folder: Path, layout: str, count: int) -> Path:
    options = ["--patients", str(count), *(["--frames", "2"] if layout == "mnms" else [])]
    options += ["--size", "32"] if layout in ("fed_isic2019", "feddrg") else []
    assert cli.main(["data", "phantom", "--layout", layout, "--output", str(folder), *options]) == 0
    return folder


def photographs(folder: Path, count: int = 8) -> Path:
    """A table of noise that nothing marks as anything."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        Image.fromarray(generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
        rows.append((f"s{number}", ("NOR", "ABN")[number % 2], "north", f"{number}.jpg"))
    with (folder / "clinic.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("subject", "label", "site", "image"), *rows])
    return folder / "clinic.csv"


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "count"), [("acdc", 5), ("mnms", 8), ("fed_isic2019", 24), ("feddrg", 24)])
def test_phantoms_in_a_published_layout_are_prepared_as_synthetic(tmp_path: Path, layout: str, count: int) -> None:
    source = phantom_set(tmp_path / "P", layout, count)
    origins = {
        d.origin
        for d in prepared(tmp_path / "D", layout, "--source", str(source), "--site", "here", "--task", "binary")
    }
    assert {(origin.kind, origin.source) for origin in origins} == {("synthetic", "phantoms of monai-fedlora")}


def test_images_are_real_and_named_unless_somebody_says_that_they_were_generated(tmp_path: Path) -> None:
    table = photographs(tmp_path)
    (real,) = prepared(tmp_path / "R", "csv", "--source", str(table), "--dataset-name", "ward 7")
    assert real.origin == Origin(kind="real", name="ward 7")
    (made,) = prepared(tmp_path / "S", "csv", "--source", str(table), "--synthetic")
    assert made.origin == Origin(kind="synthetic", name="clinic")


def test_phantoms_among_the_images_of_a_table_are_noticed(tmp_path: Path) -> None:
    phantoms = phantom_set(tmp_path / "P", "fed_isic2019", 6)
    table = photographs(tmp_path)
    marked = sorted(phantoms.rglob("*.jpg"))
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(marked[number].read_bytes())
    (site,) = prepared(tmp_path / "D", "csv", "--source", str(table))
    assert site.origin.kind == "mixed"


@pytest.mark.slow
def test_every_file_of_a_phantom_is_marked(tmp_path: Path) -> None:
    for layout, count in (("acdc", 2), ("mnms", 1), ("fed_isic2019", 6), ("feddrg", 6)):
        folder = phantom_set(tmp_path / layout, layout, count)
        files = [p for p in folder.rglob("*") if p.suffix in (".gz", ".jpg", ".png")]
        assert files and all(map(is_marked, files))
    assert not is_marked(tmp_path / "nothing")


@pytest.mark.slow
def test_site_phantom_says_that_it_is_synthetic_and_so_does_an_older_one(tmp_path: Path) -> None:
    path = phantom_data("site-1", settings=TINY)
    datalist = load_datalist(path)
    assert datalist.origin == Origin(kind="synthetic", name="phantom-site-1", source="phantoms of monai-fedlora")
    older = {key: value for key, value in json.loads(path.read_text()).items() if key != "source"}
    older["image_root"] = str(datalist.image_root)
    (tmp_path / "datalist.json").write_text(json.dumps(older))
    assert load_datalist(tmp_path / "datalist.json").origin == datalist.origin
    (tmp_path / "datalist.json").write_text(json.dumps(older | {"dataset": "acdc"}))
    assert load_datalist(tmp_path / "datalist.json").origin == Origin()


@pytest.mark.parametrize(
    "source", ["real", {}, {"kind": "reel", "name": None, "source": None}, {"kind": "real", "name": "", "source": None}]
)
def test_datalist_whose_source_is_none_is_refused(tmp_path: Path, source: object) -> None:
    datalist = load_datalist(phantom_data("site-1", settings=TINY))
    (tmp_path / "datalist.json").write_text(json.dumps(datalist.to_json() | {"source": source}))
    with pytest.raises(DataError, match="source"):
        load_datalist(tmp_path / "datalist.json")


@pytest.mark.slow
def test_pool_is_of_all_kinds_that_were_pooled() -> None:
    from dataclasses import replace

    one, two = (load_datalist(phantom_data(site, settings=TINY)) for site in ("site-1", "site-2"))
    assert pool([one, two]).origin.kind == "synthetic"
    real = replace(two, origin=Origin(kind="real", name="ward 7"))
    assert pool([one, real]).origin.kind == "mixed"
    assert "ward 7" in (pool([one, real]).origin.name or "")


@given(st.lists(st.sampled_from(KINDS), min_size=1))
def test_a_synthetic_part_is_never_lost_and_real_needs_every_part_to_be(kinds: list[str]) -> None:
    found = together(kinds)
    assert (found in ("synthetic", "mixed")) == bool({"synthetic", "mixed"} & set(kinds))
    assert (found == "real") == (set(kinds) == {"real"})
    assert together([]) == "unknown"


@given(st.text(max_size=300))
def test_any_name_of_an_older_data_set_can_be_read(name: str) -> None:
    assert recognised(name).kind in ("synthetic", "unknown")


@pytest.mark.parametrize("name", ["phantom-site-1", "phantom-dermoscopy-site-2", "phantom-a+phantom-fundus-b"])
def test_phantoms_are_recognised_by_name(name: str) -> None:
    assert recognised(name).kind == "synthetic"


@pytest.mark.parametrize("text", ["", " ", "two\nlines", "x" * 201])
def test_name_that_is_no_line_of_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Origin(kind="real", name=text)
