"""One name where a list of names is asked for is a list of that name, and never of its letters."""

from __future__ import annotations

from pathlib import Path

import pytest

import monai_fedlora as fl
from monai_fedlora.api.one_or_more import one_or_more
from monai_fedlora.errors import ConfigError


def test_a_single_value_is_a_list_of_one() -> None:
    choice = fl.method("fedit")
    assert one_or_more("ab") == ["ab"] and one_or_more(Path("a/b")) == [Path("a/b")]
    assert one_or_more(choice) == [choice] and one_or_more(("a", "b")) == ["a", "b"]


def test_the_sites_of_a_job_are_no_letters(tmp_path: Path) -> None:
    assert fl.write_job("dual_lora", output=tmp_path / "one", sites="ab").plan.sites == ("ab",)
    with pytest.raises(ConfigError, match="'ge,philips'"):
        fl.write_job("dual_lora", output=tmp_path / "two", sites="ge,philips")


def test_a_method_to_compare_is_no_list_of_letters(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'fedit'"):
        fl.compare("fedi", output=tmp_path / "compared")


def test_a_file_to_check_with_is_no_list_of_letters(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"public\.pem"):
        fl.check(tmp_path, keys=str(tmp_path / "public.pem"))
