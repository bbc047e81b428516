"""What is declared is what is needed, and a wheel carries everything a run needs."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from setuptools import find_packages

REPOSITORY = Path(__file__).resolve().parent.parent
LARGEST_WHEEL = 12 * 2**20  # bytes
VIEWER_SOURCES = "monai_fedlora/serve/web/"  # what the page's viewer is built from
FIXED_IN = {
    "cryptography": ("50", "CVE-2026-69247, and CVE-2026-26007 and others before"),
    "jinja2": ("3.1.6", "CVE-2025-27516 and others before, templates that run code"),
    "mlflow": ("3.11", "CVE-2026-4137, temporary folders that others can write"),
    "monai": ("1.5.2", "CVE-2026-21851 and GHSA-89gg-p5r5-q6r4, archives and pickles that reach too far"),
    "nvflare": ("2.7.2", "CVE-2026-24186, messages that run code"),
    "onnx": ("1.21", "CVE-2026-27489 and CVE-2026-34446, links out of a model's folder"),
    "pillow": ("12.3", "writes out of bounds and decompression bombs in versions before"),
    "pydicom": ("3.0.2", "CVE-2026-32711, a DICOMDIR that names files elsewhere"),
    "pytest": ("9.0.3", "CVE-2025-71176, a guessable temporary folder"),
    "python-multipart": ("0.0.31", "forms that cost much time, CVE-2026-40347 and later ones"),
    "scikit-learn": ("1.5", "CVE-2024-5206, training data kept in a vectoriser"),
    "setuptools": ("78.1.1", "CVE-2025-47273, downloads written outside their folder"),
    "starlette": ("1.3.1", "CVE-2026-48710 and later ones, addresses made from a foreign Host"),
    "torch": ("2.10", "CVE-2026-24747, checkpoints that write memory although only weights are read"),
    "transformers": ("5.3", "CVE-2026-4372, configurations that run code"),
}
"""The first version without a known weakness, and which that was."""


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return parser


def requirements() -> list[Requirement]:
    config = setup_cfg()
    groups = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    return [Requirement(line) for group in groups for line in group.split("\n") if line]


def pins() -> dict[str, Version]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_every_python_package_is_declared() -> None:
    declared = set(setup_cfg()["options"]["packages"].split())
    data_only = {"monai_fedlora.bundles", "monai_fedlora.nvflare_jobs"}
    assert declared == set(find_packages(str(REPOSITORY), include=["monai_fedlora*"])) | data_only


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_requirement_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def floors(name: str) -> list[Version]:
    """The oldest versions that the requirements of a package let in; 0 where one names none."""
    found = []
    for requirement in requirements():
        if canonicalize_name(requirement.name) == name:
            named = [Version(clause.version) for clause in requirement.specifier if clause.operator == ">="]
            found.append(max(named, default=Version("0")))
    return found


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_requirement_names_an_oldest_version_that_the_pin_reaches(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    assert all(Version("0") < floor <= pins()[name] for floor in floors(name))


@pytest.mark.parametrize("name", FIXED_IN)
def test_no_version_with_a_known_weakness_is_let_in(name: str) -> None:
    fixed, weakness = FIXED_IN[name]
    assert floors(name)
    assert min(floors(name)) >= Version(fixed), weakness
    assert pins()[name] >= Version(fixed), weakness


@pytest.mark.slow
def test_every_third_party_import_is_declared() -> None:
    declared = {canonicalize_name(requirement.name) for requirement in requirements()}
    distributions = packages_distributions()
    missing = set()
    for path in (REPOSITORY / "monai_fedlora").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"monai_fedlora"}:
                if declared.isdisjoint(canonicalize_name(name) for name in distributions.get(top, [top])):
                    missing.add(f"{top} ({path.relative_to(REPOSITORY)})")
    assert missing == set()


def checkout_files() -> list[str]:
    """Every file of the checkout that git tracks or would track."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a clean copy of the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in checkout_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((REPOSITORY / name).read_bytes())
    output = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), str(source)]
    subprocess.run(command, check=True)
    (built,) = output.glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_carries_code_bundles_jobs_weights_and_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if re.search(r"\.dist-info/(licenses/)?LICENSE$", name)]
    expected = set()
    for name in checkout_files():
        if any(part.startswith(".") for part in Path(name).parts) or name.startswith(VIEWER_SOURCES):
            continue
        if name.startswith("monai_fedlora/") and (
            name.endswith((".py", ".json", "py.typed"))
            or any(part in name for part in ("/weights/", "/templates/", "/serve/static/"))
        ):
            expected.add(name)
        if name.startswith(("bundles/", "nvflare_jobs/")):
            expected.add(f"monai_fedlora/{name}")
    assert inside == expected
    assert licences
    assert wheel.stat().st_size < LARGEST_WHEEL


@pytest.mark.slow
def test_installed_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True)

    def run(*command: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(site)}
        process = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True)
        return process.stdout

    program = (
        "from monai_fedlora import resources\n"
        "print(resources.__file__)\n"
        "for name in resources.list_bundles(): print(resources.bundle_path(name))\n"
    )
    found = [Path(line) for line in run(sys.executable, "-c", program).splitlines()]
    assert all(site in path.parents and path.exists() for path in found)
    shipped = {path.name for path in (REPOSITORY / "bundles").iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert {path.name for path in found[1:]} == shipped
    assert "usage: monai-fedlora" in run(str(site / "bin" / "monai-fedlora"), "--help")
