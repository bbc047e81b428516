from __future__ import annotations

import pytest

from monai_fedlora.cli import main
from monai_fedlora.data.readers.acdc import read_acdc
from monai_fedlora.data.readers.fed_isic2019 import read_fed_isic2019
from monai_fedlora.data.readers.feddrg import read_feddrg
from monai_fedlora.data.readers.mnms import read_mnms


def phantom(output, *options: str) -> int:
    return main(["data", "phantom", "--output", str(output), *options])


def test_acdc_is_written_prepared_and_announced(tmp_path, capsys) -> None:
    output = tmp_path / "new" / "acdc"
    assert phantom(output, "--patients", "3", "--vendors", "D") == 0
    printed = capsys.readouterr().out
    assert "3 made-up patients" in printed and f"monai-fedlora data acdc --source {output}" in printed
    assert len(read_acdc(output)) == 3
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["acdc"]
    assert main(["data", "acdc", "--source", str(output), "--output", str(tmp_path / "prepared")]) == 0


def test_mnms_is_written_with_a_beat(tmp_path) -> None:
    assert phantom(tmp_path / "mnms", "--layout", "mnms", "--patients", "1", "--vendors", "D", "--frames", "4") == 0
    (record,) = read_mnms(tmp_path / "mnms")
    assert (record.vendor, record.images.ed, record.images.es) == ("canon", 0, 1)


@pytest.mark.parametrize(("layout", "read"), [("fed_isic2019", read_fed_isic2019), ("feddrg", read_feddrg)])
def test_photographs_are_written_and_announced(layout, read, tmp_path, capsys) -> None:
    output = tmp_path / layout
    options = ("--layout", layout, "--patients", "12", "--vendors", "B,D", "--size", "32")
    assert phantom(output, *options) == 0
    printed = capsys.readouterr().out
    assert "12 made-up images" in printed and f"monai-fedlora data {layout} --source {output}" in printed
    records = read(output)
    assert len(records) == 12 and len({record.centre for record in records}) == 2


@pytest.mark.slow
def test_a_collection_with_every_class_can_be_prepared_at_once(tmp_path) -> None:
    output, prepared = tmp_path / "isic", tmp_path / "prepared"
    assert phantom(output, "--layout", "fed_isic2019", "--patients", "200", "--vendors", "A,C", "--size", "32") == 0
    assert main(["data", "fed_isic2019", "--source", str(output), "--output", str(prepared)]) == 0
    assert len(list(prepared.glob("*/datalist.json"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patients", "0"], "--patients"),
        (["--frames", "1"], "--frames"),
        (["--frames", "0"], "--frames"),
        (["--seed", "-1"], "--seed"),
        (["--vendors", "A,E"], "unknown vendor 'E'"),
        (["--size", "64"], "--size is for photographs"),
        (["--layout", "feddrg", "--frames", "2"], "--frames is for cine studies"),
        (["--layout", "feddrg", "--vendors", "A,G"], "unknown camera 'G'"),
        (["--layout", "fed_isic2019", "--size", "31"], "--size"),
    ],
)
def test_impossible_wishes_are_refused_and_write_nothing(options, message, tmp_path, capsys) -> None:
    assert phantom(tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path, capsys) -> None:
    assert phantom(tmp_path) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_failure_leaves_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        "monai_fedlora.data.phantom.phantom_study.make_patient",
        lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")),
    )
    with pytest.raises(OSError, match="disk full"):
        phantom(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
