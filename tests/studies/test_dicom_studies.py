"""Files of several studies are told apart, and none is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from monai_fedlora.studies.dicom_studies import NAMELESS, OTHERS, group_by_study
from tests.clinic.cine_studies import image_dataset, save


def make(study: str) -> Dataset:
    return image_dataset(
        np.ones((4, 4), np.int16), position=(0, 0, 0), series="1.2.3", study=study, number=1, trigger_time=0.0
    )


def test_files_are_sorted_by_study_and_the_rest_is_kept(tmp_path: Path) -> None:
    one, two, again = (save(make(study), tmp_path / name) for study, name in (("1.1", "a"), ("1.2", "b"), ("1.1", "c")))
    report = make("1.2")
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report = save(report, tmp_path / "report")
    text = tmp_path / "notes.txt"
    text.write_text("no DICOM")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(one.read_bytes()[:150])
    unnamed = save(make(""), tmp_path / "unnamed")
    found = group_by_study([text, one, two, damaged, again, unnamed, report])
    assert found == {OTHERS: [text, damaged], NAMELESS: [unnamed], "1.1": [one, again], "1.2": [two, report]}
    assert group_by_study([one]) == {"1.1": [one]}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pool")
    files = [save(make(f"1.{number % 3}"), folder / str(number)) for number in range(6)]
    (folder / "text").write_text("text")
    return [*files, folder / "text"]


@pytest.mark.slow
@given(data=st.data())
def test_every_file_is_in_one_group(pool: list[Path], data: st.DataObject) -> None:
    files = data.draw(st.permutations(pool))
    groups = group_by_study(files)
    assert sorted(file for group in groups.values() for file in group) == sorted(files)
    for group in groups.values():
        assert group == [file for file in files if file in group]
