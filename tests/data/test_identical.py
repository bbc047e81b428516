"""One image under two patients never crosses splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from monai_fedlora.data.identical import link_identical
from monai_fedlora.data.prepare import Settings, prepare
from monai_fedlora.data.records import FramePair, Photograph, Record
from monai_fedlora.errors import DataError


def photographs(folder: Path, contents: list[bytes]) -> list[Record]:
    records = []
    for number, content in enumerate(contents):
        (folder / f"{number:02d}.png").write_bytes(content)
        records.append(
            Record(
                subject=f"i{number:02d}",
                origin=f"a.csv:{number}",
                images=Photograph(folder / f"{number:02d}.png"),
                group="ab"[number % 2],
            )
        )
    return records


def test_records_of_one_image_become_one_unit_with_a_note(tmp_path):
    same, other = bytes(5000) + b"1", bytes(5000) + b"2"
    records = photographs(tmp_path, [same, other, b"short", same, same])
    records[4] = replace(records[4], unit="lesion")
    records[1] = replace(records[1], unit="lesion")
    linked = link_identical(records)
    assert [record.unit for record in linked] == ["i00", "i00", None, "i00", "i00"]
    assert [len(record.notes) for record in linked] == [1, 0, 0, 1, 1]
    assert "another label" in linked[0].notes[0]
    assert link_identical(linked[:3]) == linked[:3]


def test_the_same_image_lies_in_one_split_whatever_the_seed(tmp_path):
    records = photographs(tmp_path, [b"%04d" % (number // 2 if number < 20 else number) for number in range(40)])
    for seed in range(5):
        prepared = prepare(records, Settings(dataset="d", task="multiclass", site="s", seed=seed))
        splits = {case.subject: split for split, case in prepared.datalists[0].all_cases()}
        assert all(splits[f"i{number:02d}"] == splits[f"i{number + 1:02d}"] for number in range(0, 20, 2))
        assert any("20 of 40" in note and "byte for byte" in note for note in prepared.notes)


def test_one_image_as_both_ends_of_the_beat_is_refused(tmp_path):
    for name in ("ed.nii", "es.nii"):
        (tmp_path / name).write_bytes(b"same")
    record = Record(subject="p", origin="a.csv:2", images=FramePair(tmp_path / "ed.nii", tmp_path / "es.nii"))
    with pytest.raises(DataError, match=r"a\.csv:2: ED and ES, .*ed\.nii and .*es\.nii, are the same image"):
        link_identical([record])


def test_files_that_cannot_be_read_link_nothing(tmp_path):
    records = photographs(tmp_path, [b"a", b"b"])
    records = [replace(record, images=Photograph(tmp_path / "gone" / record.subject)) for record in records]
    assert link_identical(records) == records
