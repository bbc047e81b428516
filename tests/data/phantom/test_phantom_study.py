from __future__ import annotations

from collections import Counter

import pytest

from monai_fedlora.data.phantom.phantom_study import plan_acdc, plan_mnms, write_acdc, write_mnms
from monai_fedlora.data.phantom.vendors import VENDORS
from monai_fedlora.data.readers.acdc import read_acdc
from monai_fedlora.data.readers.mnms import read_mnms


def test_an_acdc_study_is_balanced_and_split_two_to_one() -> None:
    members = plan_acdc(30, [VENDORS["A"]], 0)
    assert set(Counter(member.group for member in members).values()) == {6}
    assert Counter(member.split for member in members) == {"training": 20, "test": 10}
    assert members == plan_acdc(30, [VENDORS["A"]], 0) != plan_acdc(30, [VENDORS["A"]], 1)


def test_an_mnms_study_has_every_vendor_with_its_own_prevalence() -> None:
    members = plan_mnms(200, list(VENDORS.values()), 0)
    assert set(Counter(member.vendor.code for member in members).values()) == {50}
    normal = Counter(member.vendor.code for member in members if member.group == "NOR")
    assert normal == {"A": 11, "B": 26, "C": 14, "D": 14}
    assert len({member.name for member in members}) == len({member.seed for member in members}) == 200


@pytest.mark.slow
def test_written_studies_are_read_back(tmp_path) -> None:
    members = plan_acdc(3, [VENDORS["D"]], 0)
    write_acdc(tmp_path / "acdc", members, frames=2, progress=iter)
    assert [record.group for record in read_acdc(tmp_path / "acdc")] == [member.group for member in members]
    members = plan_mnms(2, [VENDORS["A"], VENDORS["D"]], 0)
    write_mnms(tmp_path / "mnms", members, frames=3, progress=iter)
    records = {record.subject: record for record in read_mnms(tmp_path / "mnms")}
    assert {name: record.vendor for name, record in records.items()} == {
        members[0].name: "siemens",
        members[1].name: "canon",
    }
