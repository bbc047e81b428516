"""Phantoms of whole data sets: choose their patients, and write them in the layouts of ACDC and M&Ms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.data.phantom.cohort import draw_groups, mnms_code, share_out
from monai_fedlora.data.phantom.layouts import write_acdc_patient, write_mnms_patient, write_mnms_table
from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.vendors import GROUPS, Vendor
from monai_fedlora.data.splits import assign_splits

_ACDC_FOLDERS = {"training": "training", "test": "testing"}
_ACDC_FRACTIONS = (2 / 3, 0.0, 1 / 3)
_MNMS_FOLDERS = {"training": "Training/Labeled", "validation": "Validation", "test": "Testing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One patient of a study, before the scan.

    Attributes:
        name: folder of the patient.
        group: ACDC group.
        vendor: the scanner.
        split: ``training``, ``validation`` or ``test``.
        seed: seed of the patient.
    """

    name: str
    group: str
    vendor: Vendor
    split: str
    seed: tuple[int, ...]


def plan_acdc(patients: int, vendors: Sequence[Vendor], seed: int) -> list[Member]:
    """Plan a study like ACDC: as many patients of each group, two thirds for training, the rest for testing."""
    drawn = _draw(patients, vendors, seed, {vendor.code: dict.fromkeys(GROUPS, 1.0) for vendor in vendors})
    names = [f"patient{number:03d}" for number in range(1, patients + 1)]
    splits = assign_splits(
        {name: group for name, (group, _) in zip(names, drawn, strict=True)}, seed=seed, fractions=_ACDC_FRACTIONS
    )
    return _members(names, drawn, splits, seed)


def plan_mnms(patients: int, vendors: Sequence[Vendor], seed: int) -> list[Member]:
    """Plan a study like M&Ms: the same number of patients of each vendor, each with its own shares of diseases."""
    drawn = _draw(patients, vendors, seed, {vendor.code: vendor.shares() for vendor in vendors})
    names = [mnms_code(number, seed) for number in range(patients)]
    strata = {name: f"{vendor.code} {group}" for name, (group, vendor) in zip(names, drawn, strict=True)}
    return _members(names, drawn, assign_splits(strata, seed=seed), seed)


def write_acdc(
    root: Path,
    members: Sequence[Member],
    *,
    frames: int = 2,
    oriented: bool = True,
    progress: Callable[[Sequence[Member]], Iterable[Member]],
) -> None:
    """Write ``database/{training,testing}`` into ``root``; with more than two frames the 4D files too.

    Args:
        root: a folder the caller moves to its place afterwards.
        members: the patients.
        frames: frames of a beat.
        oriented: write affines with the patients' orientation.
        progress: iterates over the patients and shows the progress, as ``rich.progress.track`` does.
    """
    for member in progress(members):
        patient = make_patient(member.group, member.vendor, member.seed, frames=frames)
        folder = root / "database" / _ACDC_FOLDERS[member.split] / member.name
        write_acdc_patient(patient, folder, cine=frames > 2, oriented=oriented)


def write_mnms(
    root: Path,
    members: Sequence[Member],
    *,
    frames: int = 12,
    oriented: bool = True,
    progress: Callable[[Sequence[Member]], Iterable[Member]],
) -> None:
    """Write ``OpenDataset`` and its csv into ``root``; arguments as for :func:`write_acdc`."""
    rows = []
    for member in progress(members):
        patient = make_patient(member.group, member.vendor, member.seed, frames=frames)
        folder = root / "OpenDataset" / _MNMS_FOLDERS[member.split] / member.name
        rows.append(write_mnms_patient(patient, member.vendor, folder, oriented=oriented))
    write_mnms_table(rows, root / "OpenDataset")


def _draw(
    patients: int, vendors: Sequence[Vendor], seed: int, shares: dict[str, dict[str, float]]
) -> list[tuple[str, Vendor]]:
    counts = share_out(patients, {vendor.code: 1.0 for vendor in vendors})
    return [
        (group, vendor)
        for vendor in vendors
        for group in draw_groups(counts[vendor.code], shares[vendor.code], (seed, ord(vendor.code)))
    ]


def _members(
    names: Sequence[str], drawn: Sequence[tuple[str, Vendor]], splits: dict[str, str], seed: int
) -> list[Member]:
    return [
        Member(name=name, group=group, vendor=vendor, split=splits[name], seed=(seed, number))
        for number, (name, (group, vendor)) in enumerate(zip(names, drawn, strict=True))
    ]
