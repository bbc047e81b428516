"""A plan that pins packages and a bundle runs with these alone; how a bundle's files are laid out does not count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import ConfigError, OtherBundle, OtherVersions
from monai_fedlora.federated import installation
from monai_fedlora.federated.changes import plan_changes
from monai_fedlora.federated.installation import PACKAGES, check_installed, installed_versions, is_versions
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import read_json, write_json
from monai_fedlora.resources import bundle_digest, bundle_path
from tests.helpers import make_plan

BUNDLE = "cine_cmr_dual_lora_classification"


def check(plan: Plan) -> None:
    check_installed(plan.bundle, bundle_sha256=plan.bundle_sha256, versions=plan.versions)


def pinned(**changes: Any) -> Plan:
    pins = {"bundle": BUNDLE, "bundle_sha256": bundle_digest(BUNDLE), "versions": installed_versions()}
    return make_plan(**{**pins, **changes})


def test_what_is_installed_here_fits_a_plan_that_was_made_here() -> None:
    assert set(installed_versions()) == set(PACKAGES)
    check(pinned())
    check(make_plan(bundle="of_nobody"))  # without pins nothing is looked up


def test_the_build_of_a_version_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "installed_version", lambda name: "2.13.0rc1+cu126.of.somebody")
    assert installed_versions()["torch"] == "2.13.0rc1"
    monkeypatch.setattr(installation, "installed_version", lambda name: None)
    assert set(installed_versions()) == {"monai-fedlora"}
    with pytest.raises(OtherVersions, match=r"torch 2.13.0 \(here none\)"):
        check(make_plan(versions={"torch": "2.13.0"}))


def test_another_version_is_refused_by_name() -> None:
    with pytest.raises(OtherVersions, match=r"monai 0.0.1 \(here .*--allow-versions") as caught:
        check(pinned(versions={**installed_versions(), "monai": "0.0.1"}))
    assert "torch" not in str(caught.value)


def test_a_bundle_with_another_learning_rate_is_refused_and_one_laid_out_otherwise_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, own = pinned(), tmp_path / BUNDLE / "configs" / "train.json"
    value = read_json(bundle_path(BUNDLE) / "configs" / "train.json")
    write_json(own, value)
    monkeypatch.setenv("MONAI_FEDLORA_BUNDLES", str(tmp_path))
    own.write_text(json.dumps(dict(reversed(value.items())), indent=7))
    (own.parent / "inference.json").write_text("{}")
    check(plan)
    (tmp_path / BUNDLE / "scripts").mkdir()
    (tmp_path / BUNDLE / "scripts" / "loss.py").write_text("pass")
    with pytest.raises(OtherBundle, match="MONAI_FEDLORA_BUNDLES"):
        check(plan)
    (tmp_path / BUNDLE / "scripts" / "loss.py").unlink()
    check(plan)
    write_json(own, {**value, "learning_rate": 20 * value["learning_rate"]})
    with pytest.raises(OtherBundle):
        check(plan)


@pytest.mark.parametrize(
    "changes",
    [
        {"bundle_sha256": "of the bundle"},
        {"bundle_sha256": None},
        {"versions": {"numpy": "2.0"}},
        {"versions": {"torch": "2.13.0+patient007"}},
        {"versions": {"torch": 2}},
        {"versions": ["torch"]},
    ],
)
def test_what_pins_nothing_that_could_be_installed_is_no_plan(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        Plan.from_json({**make_plan().to_json(), **changes})


@given(st.dictionaries(st.sampled_from([*PACKAGES, "numpy"]) | st.text(), st.text() | st.integers()))
def test_versions_hold_no_words(value: dict[str, Any]) -> None:
    letters = {letter for version in value.values() for letter in str(version)}
    assert not is_versions(value) or letters <= set("0123456789.abcrpostdev")


def test_a_plan_keeps_its_pins_and_an_old_one_has_none() -> None:
    assert Plan.from_json(pinned().to_json()) == pinned()
    assert not {"versions", "bundle_sha256"} & make_plan().to_json().keys()
    assert pinned().fingerprint == make_plan(bundle=BUNDLE).fingerprint


def test_an_upgrade_is_a_change_that_has_to_be_accepted_and_pinning_for_the_first_time_is_none() -> None:
    upgraded = pinned(versions={**installed_versions(), "torch": "9.9.9"})
    (name,) = plan_changes(pinned().to_json(), upgraded, at_site=True)
    assert name == "versions.torch"
    unpinned = make_plan(bundle=BUNDLE)
    assert plan_changes(unpinned.to_json(), pinned()) == plan_changes(pinned().to_json(), unpinned) == {}
