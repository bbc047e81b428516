"""A site says why it has not answered by a code, and never by a word of its own."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.errors import (
    ConfigError,
    DataError,
    Diverged,
    FedLoraError,
    NotApproved,
    OtherBackbone,
    OutOfMemory,
    PolicyError,
    PrivacyError,
    WeightsError,
    WorkerDied,
)
from monai_fedlora.federated.lock import Busy
from monai_fedlora.federated.reasons import NOTICED, REASONS, TOLD_UNDER_BUDGET, Reason, reason_of, said_of


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "DISK_FULL"),
        (raised_from(WeightsError("cannot be written"), OSError(errno.EDQUOT, "Quota")), "DISK_FULL"),
        (PermissionError(errno.EACCES, "Permission denied"), "NOT_WRITABLE"),
        (OSError(errno.EROFS, "Read-only file system"), "NOT_WRITABLE"),
        (MemoryError(), "SITE_OUT_OF_MEMORY"),
        (OutOfMemory("memory ran out while training"), "SITE_OUT_OF_MEMORY"),
        (Busy("in use"), "BUSY"),
        (DataError("/ward/patient-7.nii.gz does not exist or is not a file"), "IMAGES_MISSING"),
        (DataError("/ward/patient-7.nii.gz is truncated"), "DATA_UNUSABLE"),
        (OtherBackbone("not the pinned weights file"), "BACKBONE_DIFFERS"),
        (WeightsError("the file is damaged"), "WEIGHTS_UNUSABLE"),
        (PolicyError("least_cases: 3 of 16"), "POLICY_FORBIDS"),
        (NotApproved("require_approval: of patient-7"), "NOT_APPROVED"),
        (PrivacyError("undeclared keys"), "TASK_REFUSED"),
        (ConfigError("has the classes"), "SETTINGS_DIFFER"),
        (Diverged("training diverged"), "DIVERGED"),
        (WorkerDied("killed"), "WORKER_DIED"),
        (FedLoraError("of an unknown kind"), "SITE_FAILED"),
        (ValueError("patient-7"), "SITE_FAILED"),
    ],
)
def test_an_error_has_the_code_of_its_kind_or_of_its_cause(error: Exception, code: str) -> None:
    assert reason_of(error) == code
    assert "patient-7" not in REASONS[code]


class Odd(ValueError, WeightsError):
    """An error of two kinds."""


ERRORS = [FedLoraError, DataError, WeightsError, Odd, PrivacyError, PolicyError, ConfigError, OSError, KeyError]


@given(st.sampled_from(ERRORS), st.text(), st.text(min_size=8))
def test_what_leaves_of_an_error_is_one_of_the_codes_and_nothing_of_its_text(
    kind: type[Exception], text: str, secret: str
) -> None:
    code = reason_of(raised_from(kind(text + secret), ValueError(secret)))
    assert code in REASONS
    assert secret not in str(Reason.of(code)) or secret in REASONS[code]


@given(st.sampled_from([*ERRORS, Diverged, MemoryError, WorkerDied, NotApproved, Busy, OtherBackbone]), st.text())
def test_under_a_budget_a_code_is_one_that_no_patient_decides(kind: type[Exception], text: str) -> None:
    code = reason_of(kind(text), budget=True)
    assert code in TOLD_UNDER_BUDGET | {"SITE_FAILED"}
    assert code in (reason_of(kind(text)), "SITE_FAILED")


def test_what_a_patient_may_have_caused_is_all_one_code() -> None:
    about_patients = {"IMAGES_MISSING", "DATA_UNUSABLE", "DIVERGED", "SITE_OUT_OF_MEMORY", "WORKER_DIED"}
    about_patients |= {"DISK_FULL", "NOT_WRITABLE", "POLICY_FORBIDS", "SETTINGS_DIFFER"}
    assert REASONS.keys() - TOLD_UNDER_BUDGET == about_patients | {"SITE_FAILED"}


def test_no_code_means_two_things() -> None:
    assert not REASONS.keys() & NOTICED.keys()
    assert all(code.isupper() and text for code, text in {**REASONS, **NOTICED}.items())


def test_a_refusal_of_an_earlier_version_is_said_without_a_code() -> None:
    assert said_of({"site": "south", "reason": "NaN"}) == "NaN"
    assert said_of({"site": "south", "reason": "no answer", "code": "NO_ANSWER"}) == "no answer (NO_ANSWER)"


def test_a_real_missing_image_has_its_code(tmp_path: Path) -> None:
    from monai_fedlora.formats.nifti import open_volume

    with pytest.raises(DataError) as caught:
        open_volume(tmp_path / "gone.nii.gz", axes=3)
    assert reason_of(caught.value) == "IMAGES_MISSING"
