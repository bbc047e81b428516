"""A site looks at its own things before anybody trains, goes on after what is wrong, and trains nothing."""

from __future__ import annotations

import dataclasses
import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from monai_fedlora.federated import lock
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.installation import installed_versions
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.reasons import BUSY, POLICY_FORBIDS
from monai_fedlora.federated.site_policy import Policy
from monai_fedlora.federated.site_readiness import Examination
from monai_fedlora.files import read_json, write_json
from monai_fedlora.privacy.budget import Budget
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.resources import bundle_digest
from tests.federated.conftest import BUNDLE, Prepared

FREE = Policy(least_cases=1, least_steps=1)


class Ward:
    """A site that can be spoilt."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        self.plan: Plan = prepared.plan(bundle_sha256=bundle_digest(BUNDLE), versions=installed_versions())
        self.prepared, self.folder = prepared, folder
        self.source: Installed = prepared.source
        self.policy = FREE
        self.errors: list[str] = []
        self.manifest = build_shared(self.plan)[0]
        self.private = folder / "private"
        self.private.mkdir()

    def codes(self) -> tuple[str, ...]:
        return self.look().codes

    def look(self) -> Any:
        return self.examination().readiness()

    def examination(self) -> Examination:
        return Examination(
            name="site-1",
            plan=self.plan,
            manifest=self.manifest,
            private_root=self.private,
            source=self.source,
            policy=lambda: self.policy,
            note=lambda error: self.errors.append(f"{type(error).__name__}: {error}"),
        )

    def change_list(self, change: Callable[[dict[str, Any]], None]) -> None:
        value = read_json(self.prepared.data / "site-1" / "datalist.json")
        change(value)
        write_json(self.folder / "data" / "site-1" / "datalist.json", value)
        self.source = dataclasses.replace(self.source, data_root=str(self.folder / "data"))


@pytest.fixture
def ward(prepared: Prepared, tmp_path: Path) -> Ward:
    return Ward(prepared, tmp_path)


def test_a_site_that_is_ready_says_what_it_has_and_leaves_nothing_behind(ward: Ward) -> None:
    ward.change_list(lambda value: value["training"].append({**value["training"][0], "subject": "a fifth"}))
    said = ward.look()
    assert ward.errors == []
    assert said.codes == () and said.cases == 5
    assert (said.versions, said.bundle) == (installed_versions(), bundle_digest(BUNDLE)[:8])
    assert 0 < said.needed_mb < said.free_mb
    assert list(ward.private.iterdir()) == []


def test_a_site_in_whose_folder_another_process_works_says_so(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_PATIENCE", 0.0)
    folder = ward.private / ward.plan.experiment / "site-1"
    folder.mkdir(parents=True)
    assert ward.codes() == ()
    with open(folder / lock.LOCK_NAME, "wb") as other:  # an open file of its own, as another process has
        fcntl.flock(other, fcntl.LOCK_EX)
        assert ward.codes() == (BUSY,)
    assert ward.codes() == ()
    with lock.FolderLock(folder, shared=True):  # the tasks of the job that asks
        assert ward.codes() == ()


def image_gone(ward: Ward) -> None:
    ward.change_list(lambda value: value["training"][0].update(ed="gone.nii.gz"))


def image_unreadable(ward: Ward) -> None:
    (ward.folder / "broken.nii.gz").write_text("no image")
    images = ward.folder / "images"
    shutil.copytree(ward.prepared.data.parent / "images", images)

    def spoil(value: dict[str, Any]) -> None:
        (images / value["training"][0]["ed"]).write_text("no image")
        value["image_root"] = str(images)

    ward.change_list(spoil)


def another_class(ward: Ward) -> None:
    ward.plan = dataclasses.replace(ward.plan, classes=("NOR", "ILL"))


def another_backbone(ward: Ward) -> None:
    ward.plan = dataclasses.replace(ward.plan, backbone_sha256="0" * 64)


def another_version(ward: Ward) -> None:
    ward.plan = dataclasses.replace(ward.plan, versions={"torch": "0.0.1"})


def another_bundle(ward: Ward) -> None:
    ward.plan = dataclasses.replace(ward.plan, bundle_sha256="0" * 64)


def forbidden(ward: Ward) -> None:
    ward.policy = dataclasses.replace(FREE, least_cases=99)


def not_approved(ward: Ward) -> None:
    ward.policy = dataclasses.replace(FREE, require_approval=True)


def other_manifest(ward: Ward) -> None:
    ward.manifest = build_shared(dataclasses.replace(ward.plan, method_args={"rank": 2}))[0]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (image_gone, "IMAGES_MISSING"),
        (image_unreadable, "DATA_UNUSABLE"),
        (another_class, "SETTINGS_DIFFER"),
        (another_backbone, "BACKBONE_DIFFERS"),
        (another_version, "VERSIONS_DIFFER"),
        (another_bundle, "BUNDLE_DIFFERS"),
        (forbidden, "POLICY_FORBIDS"),
        (not_approved, "NOT_APPROVED"),
        (other_manifest, "TASK_REFUSED"),
    ],
)
def test_what_is_wrong_is_named_by_its_code_and_told_in_full_at_the_site_alone(
    ward: Ward, spoil: Callable[[Ward], None], code: str
) -> None:
    spoil(ward)
    said = ward.look()
    assert said.codes == (code,), ward.errors
    assert said.cases is None
    assert len(ward.errors) == 1


@pytest.mark.parametrize("spoil", [image_gone, another_backbone])
def test_a_site_that_is_not_ready_keeps_nothing_of_what_it_has_read(ward: Ward, spoil: Callable[[Ward], None]) -> None:
    spoil(ward)
    examination = ward.examination()
    assert examination.readiness().codes
    assert examination.furnished is None


def test_several_things_are_named_at_once(ward: Ward) -> None:
    image_gone(ward)
    another_backbone(ward)
    assert ward.codes() == ("BACKBONE_DIFFERS", "IMAGES_MISSING")


def test_a_job_that_the_policy_forbids_is_not_shown_the_data(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    not_approved(ward)
    monkeypatch.setattr(Examination, "_data", lambda self: pytest.fail("it looks at the data"))
    monkeypatch.setattr(Examination, "_network", lambda self: pytest.fail("it loads weights"))
    assert ward.codes() == ("NOT_APPROVED",)


def test_a_disk_with_less_than_a_run_takes_is_full(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    assert ward.codes() == ("DISK_FULL",)


def test_a_folder_that_cannot_be_written_is_named(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**given: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("monai_fedlora.federated.site_readiness.tempfile.TemporaryFile", refuse)
    assert ward.codes() == ("NOT_WRITABLE",)


@pytest.mark.slow
def test_a_site_whose_budget_does_not_allow_all_rounds_is_not_ready_and_says_no_number(ward: Ward) -> None:
    settings = PrivacySettings(epsilon=8.0, delta=1e-5, clip=1.0)
    ward.plan = dataclasses.replace(ward.plan, privacy=settings, declared_cases={"site-1": 8, "site-2": 8})
    ward.policy = dataclasses.replace(FREE, budget=Budget(epsilon=8.0, delta=1e-5))
    assert ward.codes() == ()
    ward.policy = dataclasses.replace(FREE, budget=Budget(epsilon=7.0, delta=1e-5))
    said = ward.look()
    assert (said.codes, said.cases) == ((POLICY_FORBIDS,), None)
    ward.policy = dataclasses.replace(FREE, least_steps=3)
    assert ward.codes() == (POLICY_FORBIDS,)
    assert "trained in 2 optimiser steps, of at least 3" in ward.errors.pop()
    assert "2 more would make it 7.9" in ward.errors[-1]
