"""A datalist that loads can be trained from; anything else is a DataError naming file and patient."""

from __future__ import annotations

import json
import os
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fedlora.data import datalist as module
from monai_fedlora.data.datalist import Case, Datalist, load_datalist, read_prepared, write_datalists
from monai_fedlora.errors import ConfigError, DataError


def pair(subject: str, label: int = 0) -> dict:
    return {"subject": subject, "label": label, "group": "NOR", "ed": "ed.nii.gz", "es": "es.nii.gz"}


def cine(subject: str, label: int = 1) -> dict:
    return {
        "subject": subject,
        "label": label,
        "group": "DCM",
        "cine": "4d.nii.gz",
        "ed_frame": 0,
        "es_frame": 11,
    }


def photograph(subject: str, unit: str | None = None, label: int = 0) -> dict:
    entry = {"subject": subject, "label": label, "group": "NV", "image": "a.jpg"}
    return entry if unit is None else entry | {"unit": unit}


@pytest.fixture
def content(tmp_path: Path) -> dict:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("ed.nii.gz", "es.nii.gz", "4d.nii.gz", "a.jpg"):
        (images / name).touch()
    return {
        "format": 1,
        "site": "siemens",
        "dataset": "acdc",
        "task": "binary",
        "classes": ["NOR", "ABN"],
        "image_root": "../images",
        "seed": 0,
        "training": [pair("p1"), cine("p2")],
        "validation": [],
        "test": [pair("p3")],
    }


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "siemens" / "datalist.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_a_valid_file_gives_monai_dictionaries_with_absolute_paths(tmp_path, content):
    datalist = load_datalist(write(tmp_path, content))
    images = tmp_path / "images"
    assert datalist.items("training") == [
        {"subject": "p1", "label": 0, "ed": str(images / "ed.nii.gz"), "es": str(images / "es.nii.gz")},
        {"subject": "p2", "label": 1, "cine": str(images / "4d.nii.gz"), "ed_frame": 0, "es_frame": 11},
    ]
    assert datalist.items("validation") == []
    assert datalist.counts("training") == (1, 1)
    assert datalist.counts("test") == (1, 0)


def test_photographs_give_monai_dictionaries_too(tmp_path, content):
    photographs = content | {"training": [photograph("i1", "l1"), photograph("i2", "l1")], "test": [photograph("i3")]}
    datalist = load_datalist(write(tmp_path, photographs))
    image = str(tmp_path / "images" / "a.jpg")
    assert datalist.items("training") == [
        {"subject": "i1", "label": 0, "image": image},
        {"subject": "i2", "label": 0, "image": image},
    ]
    assert [case.unit for _, case in datalist.all_cases()] == ["l1", "l1", None]
    assert datalist.to_json(image_root="../images") == photographs
    assert (datalist.modality, load_datalist(write(tmp_path, content)).modality) == ("image", "cine")


def test_an_unknown_split_is_refused(tmp_path, content):
    with pytest.raises(ConfigError, match="'train'"):
        load_datalist(write(tmp_path, content)).items("train")


def test_a_file_survives_reading_and_writing(tmp_path, content):
    datalist = load_datalist(write(tmp_path, content))
    assert datalist.to_json(image_root="../images") == content


def change(content: dict, key: str, value: object) -> dict:
    return content | {key: value}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: change(c, "format", 2), "format 2"),
        (lambda c: change(c, "format", None), "format None"),
        (lambda c: change(c, "site", "a/b"), "cannot name a site"),
        (lambda c: change(c, "site", "Server"), "cannot name a site"),
        (lambda c: change(c, "task", "ternary"), "ternary"),
        (lambda c: change(c, "classes", ["NOR"]), "two or more"),
        (lambda c: change(c, "classes", ["NOR", "NOR"]), "two or more"),
        (lambda c: change(c, "classes", ["NOR", 1]), "list of names"),
        (lambda c: change(c, "seed", "0"), "seed must be a JSON integer"),
        (lambda c: change(c, "seed", True), "seed must be a JSON integer"),
        (lambda c: change(c, "training", {}), "training must be a JSON array"),
        (lambda c: change(c, "training", []), "training split is empty"),
        (lambda c: change(c, "extra", 1), "unknown field extra"),
        (lambda c: {k: v for k, v in c.items() if k != "test"}, "lacks test"),
        (lambda c: change(c, "test", [pair("p1")]), "subject p1 .*patient in two splits"),
        (lambda c: change(c, "test", [pair("p3"), pair("p3")]), "subject p3 .*patient listed twice"),
        (lambda c: change(c, "test", [pair("p3", 2)]), "subject p3 has label 2"),
        (lambda c: change(c, "test", [pair("p3", -1)]), "subject p3 has label -1"),
        (lambda c: change(c, "test", [pair("p3") | {"label": "0"}]), "p3.*label must be"),
        (lambda c: change(c, "test", [pair("p3") | {"ed": "/ed.nii.gz"}]), "subject p3.*stay inside"),
        (lambda c: change(c, "test", [pair("p3") | {"ed": "C:\\ed.nii.gz"}]), "subject p3.*stay inside"),
        (lambda c: change(c, "test", [pair("p3") | {"ed": "a/../../ed.nii.gz"}]), "subject p3.*stay inside"),
        (lambda c: change(c, "test", [pair("p3") | {"ed": "."}]), "subject p3.*stay inside"),
        (lambda c: change(c, "test", [pair("p3") | {"ed": "gone.nii.gz"}]), "subject p3.*does not exist"),
        (lambda c: change(c, "test", [pair("p3") | {"ed": "x" * 5000}]), "subject p3.*does not exist"),
        (lambda c: change(c, "test", [{"subject": "p3", "label": 0, "group": "NOR"}]), "p3.*neither"),
        (
            lambda c: change(c, "test", [{"subject": "p3", "label": 0, "group": "NOR", "ed": "ed"}]),
            "p3.*either",
        ),
        (lambda c: change(c, "test", [pair("p3") | cine("p3")]), "p3.*either"),
        (lambda c: change(c, "test", [cine("p3") | {"es_frame": -1}]), "p3.*negative frame"),
        (lambda c: change(c, "test", [cine("p3") | {"es_frame": 1.5}]), "p3.*es_frame must be"),
        (lambda c: change(c, "test", [photograph("p3") | pair("p3")]), "p3.*either"),
        (lambda c: change(c, "test", [photograph("p3")]), "p3: photographs and cine studies"),
        (lambda c: change(c, "test", [pair("p3") | {"unit": ""}]), "p3.*unit is empty"),
        (lambda c: change(c, "test", [pair("p3") | {"unit": 3}]), "p3.*unit must be"),
        (
            lambda c: c | {"training": [photograph("i1", "l1")], "test": [photograph("i2", "l1")]},
            "subject i2 is in test, but its unit l1 is in training too",
        ),
        (lambda c: change(c, "test", [pair(" ")]), "test case 1: subject is empty"),
        (lambda c: change(c, "test", ["p3"]), "test case 1 is a JSON str"),
        (lambda c: [c], "JSON list"),
    ],
)
def test_every_fault_is_named_with_the_file(tmp_path, content, edit, message):
    path = write(tmp_path, edit(content))
    with pytest.raises(DataError, match=message) as caught:
        load_datalist(path)
    assert str(path) in str(caught.value) or "cannot name a site" in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000])
def test_what_is_not_json_is_a_data_error_naming_the_file(tmp_path, raw):
    path = tmp_path / "datalist.json"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"datalist\.json"):
        load_datalist(path)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match=r"does not exist.*monai-fedlora data"):
        load_datalist(tmp_path / "datalist.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_gives_a_data_error_or_a_usable_datalist(tmp_path, content, data):
    (tmp_path / "images").mkdir(exist_ok=True)
    damaged = json.loads(json.dumps(content))
    spot = data.draw(st.sampled_from([damaged, damaged["training"][0], damaged["training"][1], damaged["test"][0]]))
    spot[data.draw(st.sampled_from(sorted(spot)))] = data.draw(json_values)
    try:
        datalist = load_datalist(write(tmp_path, damaged))
    except DataError:
        return
    subjects = [case.subject for _, case in datalist.all_cases()]
    assert len(subjects) == len(set(subjects))
    for item in datalist.items("training"):
        assert item["label"] in range(len(datalist.classes))
        assert all(os.path.isabs(str(item[key])) for key in ("ed", "es", "cine") if key in item)


def _site(tmp_path: Path, name: str = "siemens", first: int = 1) -> Datalist:
    images = tmp_path / "images"
    images.mkdir(exist_ok=True)
    for file in ("ed.nii.gz", "es.nii.gz"):
        (images / file).touch()
    cases = tuple(
        Case(subject=f"p{first + label}", label=label, group=str(label), ed="ed.nii.gz", es="es.nii.gz")
        for label in (0, 1)
    )
    return Datalist(
        site=name,
        dataset="acdc",
        task="binary",
        classes=("NOR", "ABN"),
        image_root=images,
        seed=0,
        training=cases,
    )


def test_written_sites_load_again_and_more_can_be_added(tmp_path):
    one, two = _site(tmp_path), _site(tmp_path, "ge", first=5)
    output = tmp_path / "out"
    assert write_datalists([one], output) == (output / "siemens" / "datalist.json",)
    write_datalists([two], output)
    assert read_prepared(output) == (two, one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]


def test_an_existing_site_is_kept_unless_overwriting(tmp_path):
    one = _site(tmp_path)
    output = tmp_path / "out"
    write_datalists([one], output)
    (output / "siemens" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        write_datalists([replace(one, seed=1)], output)
    assert read_prepared(output) == (one,)
    write_datalists([replace(one, seed=1)], output, overwrite=True)
    assert read_prepared(output) == (replace(one, seed=1),)
    assert (output / "siemens" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"classes": ("NOR", "DCM")}, "'ABN'.*'DCM'"),
        ({"task": "multiclass"}, "share task and classes"),
        ({"site": "siemens"}, "siemens occurs twice"),
        ({"dataset": "acdc", "training": ()}, "training split is empty"),
    ],
)
def test_sites_that_contradict_each_other_write_nothing(tmp_path, edit, message):
    one, two = _site(tmp_path), replace(_site(tmp_path, "ge", first=5), **edit)
    with pytest.raises(DataError, match=message):
        write_datalists([one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_patient_belongs_to_one_site(tmp_path):
    write_datalists([_site(tmp_path)], tmp_path / "out")
    with pytest.raises(DataError, match="subject p2 of acdc is at site siemens and at site ge"):
        write_datalists([_site(tmp_path, "ge", first=2)], tmp_path / "out")
    write_datalists([replace(_site(tmp_path, "ge", first=2), dataset="mnms")], tmp_path / "out")


def test_a_lesion_at_two_sites_has_one_split(tmp_path):
    sites = [_site(tmp_path, "a", 1), _site(tmp_path, "b", 5)]
    one, two = (replace(site, training=tuple(replace(c, unit="l") for c in site.training)) for site in sites)
    write_datalists([one, two], tmp_path / "out")
    split = replace(two, training=sites[1].training[:1], test=two.training[1:])
    with pytest.raises(DataError, match="l of acdc is in training at site a and in test at site b"):
        write_datalists([split], tmp_path / "out", overwrite=True)
    write_datalists([replace(split, dataset="mnms")], tmp_path / "out", overwrite=True)


@pytest.mark.slow
@pytest.mark.parametrize("already", [False, True])
@pytest.mark.parametrize("fails_at", range(1, 5))
def test_a_failing_disk_leaves_the_output_as_it_was(tmp_path, monkeypatch, already, fails_at):
    output = tmp_path / "out"
    sites = [_site(tmp_path, "a", 1), _site(tmp_path, "b", 5)]
    if already:
        write_datalists([sites[0]], output)
    before = read_prepared(output)
    calls = 0

    def fail(*args: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError("disk full")
        real(*args)

    real = os.replace
    monkeypatch.setattr(module.os, "replace", fail)
    changed = [replace(site, seed=7) for site in sites]
    try:
        write_datalists(changed, output, overwrite=True)
    except OSError:
        assert read_prepared(output) == before
        assert output.exists() == already
    else:
        assert read_prepared(output) == tuple(changed)
    assert not list(tmp_path.glob(".out*"))


def test_the_output_may_not_be_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(DataError, match="is a file"):
        write_datalists([_site(tmp_path)], tmp_path / "out")


@given(name=st.text(alphabet=string.printable, max_size=70))
def test_a_site_name_is_always_one_plain_folder(name):
    try:
        module.check_site_name(name)
    except DataError:
        return
    assert Path(name).name == name
    assert name.isascii()
    assert "." not in name
