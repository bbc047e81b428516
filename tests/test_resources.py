"""Bundles and jobs are found by name, in a fixed order, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora import resources
from monai_fedlora.errors import ConfigError, WeightsError


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A package, a checkout and an operator's folder that hold nothing yet."""
    roots = {
        "package": tmp_path / "site" / "monai_fedlora",
        "checkout": tmp_path / "repo",
        "own": tmp_path / "own",
    }
    monkeypatch.setattr(resources, "_PACKAGE", roots["package"])
    monkeypatch.setattr(resources, "_CHECKOUT", roots["checkout"])
    monkeypatch.setenv(resources.BUNDLES_VARIABLE, str(roots["own"]))
    return roots


def test_operator_wins_over_package_wins_over_checkout(places: dict[str, Path]) -> None:
    expected = [places["checkout"] / "bundles", places["package"] / "bundles", places["own"]]
    for root in expected:
        (root / "cine").mkdir(parents=True)
        assert resources.bundle_path("cine") == root / "cine"


def test_bundles_of_all_places_are_listed_once(places: dict[str, Path]) -> None:
    for root, name in [("own", "b"), ("own", "a"), ("package", "bundles/a"), ("checkout", "bundles/c")]:
        (places[root] / name).mkdir(parents=True)
    (places["own"] / "__pycache__").mkdir()
    (places["own"] / "README.md").touch()
    assert resources.list_bundles() == ["a", "b", "c"]


def test_unknown_bundle_names_the_places_and_what_is_there(places: dict[str, Path]) -> None:
    (places["own"] / "cine").mkdir(parents=True)
    with pytest.raises(ConfigError) as error:
        resources.bundle_path("cien")
    for part in [
        "'cien'",
        "cine",
        str(places["own"]),
        str(places["package"] / "bundles"),
        "MONAI_FEDLORA_BUNDLES",
    ]:
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["", ".", "..", "../bundles", "/etc", "a/b", "a\\b", ".git", "a\n"])
@pytest.mark.parametrize("find", [resources.bundle_path, resources.job_template_path])
def test_only_plain_names_are_looked_up(name: str, find: object) -> None:
    with pytest.raises(ConfigError, match="is not a"):
        find(name)  # type: ignore[operator]


def test_jobs_come_from_the_package_or_the_checkout_only(places: dict[str, Path]) -> None:
    (places["own"] / "dual_lora").mkdir(parents=True)
    with pytest.raises(ConfigError, match="'dual_lora'"):
        resources.job_template_path("dual_lora")
    (places["checkout"] / "nvflare_jobs" / "dual_lora").mkdir(parents=True)
    assert resources.job_template_path("dual_lora") == places["checkout"] / "nvflare_jobs" / "dual_lora"


def test_missing_demo_weights_are_named(places: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors does not exist"):
        resources.weights_path("none.safetensors")


def test_everything_shipped_is_found(repository: Path) -> None:
    for folder, find in [("bundles", resources.bundle_path), ("nvflare_jobs", resources.job_template_path)]:
        for entry in (repository / folder).iterdir():
            if entry.is_dir() and not entry.name.startswith(("_", ".")):
                assert find(entry.name) == entry
