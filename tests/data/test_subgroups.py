"""Columns of a table become subgroups of patients in the datalist, and of nothing that is trained on or sent."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.comparison.comparison_data import content_hash
from monai_fedlora.data.datalist import load_datalist, write_datalists
from monai_fedlora.data.prepare import Settings, prepare
from monai_fedlora.data.records import Photograph, Record
from monai_fedlora.data.subgroups import bin_name, find_subgroups, without_subgroups
from monai_fedlora.errors import ConfigError, DataError

SEXES = ("F", "f", "M", "", "unknown")


def records(
    folder: Path = Path("/data"), *, sexes: tuple[str, ...] = SEXES, ages: tuple[str, ...] = ("39.5", "40")
) -> list[Record]:
    return [
        Record(
            subject=f"p{n:02d}",
            origin=f"a.csv:{n + 2}",
            images=Photograph(folder / f"{n}.png"),
            group=("NOR", "DCM")[n % 2],
            columns={"subject": f"p{n:02d}", "Sex": sexes[n % len(sexes)], "Age": ages[n % len(ages)]},
        )
        for n in range(20)
    ]


def test_words_and_bins_are_subgroups_and_empty_cells_are_none() -> None:
    found, notes = find_subgroups(records(), {"Sex": None, "Age": (40.0, 60.0)})
    assert found["p00"] == (("Age", "below 40"), ("Sex", "f"))
    assert found["p01"] == (("Age", "40 to below 60"), ("Sex", "f"))
    assert found["p03"] == (("Age", "40 to below 60"),)
    assert found["p04"] == (("Age", "below 40"),)
    assert notes == ["subgroup Sex: 8 f, 4 m, 8 not given", "subgroup Age: 10 40 to below 60, 10 below 40"]


def test_cells_of_a_missing_value_are_none_and_long_numbers_stay_apart() -> None:
    found, _ = find_subgroups(records(sexes=("NaN", "NA", "null", "f")), {"Sex": None})
    assert [found[f"p{n:02d}"] for n in range(4)] == [(), (), (), (("Sex", "f"),)]
    found, _ = find_subgroups(records(ages=("1234567", "1234568", "40.0")), {"Age": None})
    assert [found[f"p{n:02d}"] for n in range(3)] == [(("Age", "1234567"),), (("Age", "1234568"),), (("Age", "40"),)]


@settings(max_examples=25)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=5, unique=True).map(sorted), st.floats(-100, 100))
def test_every_number_is_in_the_one_bin_whose_edges_hold_it(edges: list[int], value: float) -> None:
    names = [f"below {edges[0]}", *(f"{a} to below {b}" for a, b in pairwise(edges))]
    names.append(f"{edges[-1]} and above")
    assert bin_name(value, edges) == names[sum(edge <= value for edge in edges)]


def test_what_cannot_divide_patients_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="subgroup 'sexe': the source has no such column; did you mean 'Sex'"):
        find_subgroups(records(), {"sexe": None})
    with pytest.raises(ConfigError, match="no table"):
        find_subgroups([replace(each, columns={}) for each in records()], {"sex": None})
    for edges in ((60.0, 40.0), (40.0, 40.0), (), (float("nan"),)):
        with pytest.raises(ConfigError, match="growing numbers"):
            find_subgroups(records(), {"Age": edges})
    with pytest.raises(DataError, match="20 different values; give the edges of bins, such as subject=40,60"):
        find_subgroups(records(), {"subject": None})
    with pytest.raises(DataError, match=r"a.csv:2: Sex is 'F', which is in no bin"):
        find_subgroups(records(), {"Sex": (1.0,)})
    with pytest.raises(DataError, match="Sex: the column is empty for every patient"):
        find_subgroups(records(sexes=("", "unknown")), {"Sex": None})


def test_datalists_hold_them_and_items_and_the_identity_of_data_do_not(tmp_path: Path) -> None:
    found = records(tmp_path)
    for record in found:
        record.files()[0].write_bytes(record.subject.encode())
    plain = Settings(dataset="d", task="multiclass", by="centre", site="north")
    (bare,) = prepare(found, plain).datalists
    prepared = prepare(found, replace(plain, subgroups=(("Sex", None),)))
    (path,) = write_datalists(prepared.datalists, tmp_path / "out")
    datalist = load_datalist(path)
    assert {case.subject: case.subgroups for _, case in datalist.all_cases()}["p02"] == (("Sex", "m"),)
    assert datalist == prepared.datalists[0]
    assert without_subgroups(datalist) == bare
    assert content_hash(datalist) == content_hash(bare)
    assert all("subgroups" not in item for item in datalist.items("training"))
    assert "subgroups" not in json.dumps(bare.to_json())
    content = json.loads(path.read_text())
    content["training"][0]["subgroups"] = {"sex": 3}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="subgroups must be a JSON object of texts"):
        load_datalist(path)
