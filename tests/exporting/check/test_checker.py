"""The whole check: what this package writes passes, and what was tampered with does not."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.exporting.checksums import write_checksums
from monai_fedlora.files import read_json, sha256
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.resources import bundle_path, list_bundles
from tests.exporting.check.tampering import RESEALED, UNSEALED, raw_zip, reseal
from tests.exporting.finished_runs import Run
from tests.exporting.test_text_methods import run_of
from tests.helpers import for_methods
from tests.networks.clip import write_towers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


@pytest.fixture
def bundle(image_exported: Exported, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return Path(shutil.copytree(image_exported.folder, tmp_path / "skin"))


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{folder.name}/{path.relative_to(folder)}")
    return target


def problems(bundle: Path, **options: Any) -> list[str]:
    return [f"{finding.rule}: {finding.problem}" for finding in check_bundle(bundle, **options).findings]


@pytest.mark.parametrize("name", list_bundles())
def test_a_shipped_bundle_passes(name: str) -> None:
    report = check_bundle(bundle_path(name))
    assert (report.findings, report.kind, report.digest) == ((), "training", None)


def test_an_exported_bundle_passes_as_folder_and_as_zip(
    exported: Exported, image_exported: Exported, tmp_path: Path
) -> None:
    for found in (exported, image_exported):
        for path in (found.folder, zipped(found.folder, tmp_path / f"{found.folder.name}.zip")):
            report = check_bundle(path)
            assert (report.findings, report.kind, report.digest) == ((), "exported", found.digest)
            assert report.files == sum(path.is_file() for path in found.folder.rglob("*"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a CLIP with random weights."""
    return write_towers(tmp_path_factory.mktemp("clip"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", for_methods(method_names(), always=("clip_zero_shot", "dual_lora", "fedavg", "pfedst", "prompt_tuning"))
)
def test_the_export_of_every_method_passes(
    make_image_run: Callable[..., Run], clip: Path, tmp_path: Path, method: str
) -> None:
    if get_method(method).reads_text:
        run = run_of(clip, tmp_path / "W", method)
    else:
        run = make_image_run(method=method, sites=("site-1",))
    exported = export_bundle(**run.options(tmp_path / "B"))
    assert check_bundle(exported.folder).passed
    assert exported.metadata["out_of_distribution"]["available"] is True


@pytest.mark.parametrize("change", RESEALED)
def test_tampering_is_found_even_with_new_checksums(bundle: Path, change: str) -> None:
    tamper, rule, message = RESEALED[change]
    tamper(bundle)
    reseal(bundle)
    found = check_bundle(bundle)
    assert [f for f in found.findings if f.rule == rule and message in f.problem], found.findings


@pytest.mark.slow
@pytest.mark.parametrize("change", UNSEALED)
def test_every_change_contradicts_the_checksums(bundle: Path, change: str) -> None:
    tamper, message = UNSEALED[change]
    tamper(bundle)
    assert [problem for problem in problems(bundle) if problem.startswith("checksums") and message in problem]


@pytest.mark.slow
def test_a_bundle_rewritten_as_a_whole_has_another_digest(bundle: Path, image_exported: Exported) -> None:
    (bundle / "docs" / "README.md").write_text("For clinical use.\n")
    assert write_checksums(bundle) == sha256(bundle / "checksums.json")
    assert problems(bundle) == []
    (problem,) = problems(bundle, digest=image_exported.digest)
    assert "it is of another export" in problem
    assert problems(image_exported.folder, digest=image_exported.digest.upper()) == []


def test_a_model_makes_checksums_compulsory(bundle: Path) -> None:
    (bundle / "checksums.json").unlink()
    assert problems(bundle) == ["files: is missing"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"configs/run.py": "x"}, "files: is code"),
        ({"configs/train.yaml": "a: 1"}, "files: is no file of a training bundle"),
        ({"configs/train.json": '{"run": ["$print(1)"]}'}, "is an expression, of which this file has none"),
        ({"configs/train.json": '{"a": {"_target_": "Compose"}}'}, "is not on the list of this kind of bundle"),
        ({"configs/train.json": '{"a": 1, "a": 2}'}, "a key occurs twice"),
        ({"configs/train.json": '{"a": NaN}'}, "is no JSON number"),
        ({"configs/train.json": "[" * 200 + "]" * 200}, "is nested deeper"),
        ({"configs/train.json": '{"a": 1e999}'}, "is too large a number"),
        ({"configs/train.json": '{"a": "\\ud800"}'}, "is not valid JSON"),
        ({"configs/train.json": '{"a": {"reader": "NumpyReader"}}'}, "names a reader"),
        ({"configs/train.json": "[]"}, "is not a JSON object"),
        ({"configs/train.json": "{"}, "is not valid JSON"),
        ({"configs/logging.conf": "[handler_x]\nclass=__import__('os').system('true')\n"}, "which no bundle needs"),
        ({"configs/logging.conf": "[handler_x]\nargs=(open('/tmp/x', 'w'),)\n"}, "which no bundle needs"),
        ({"configs/logging.conf": "[DEFAULT]\nclass=StreamHandler\n"}, "sets values for all sections"),
        ({"configs/logging.conf": "nonsense"}, "is no logging configuration"),
        ({"configs/metadata.json": '{"schema": "x"}'}, "does not fit the schema"),
        ({"models/model.pt": "x"}, "files: is no file of an exported bundle"),
    ],
)
def test_a_training_bundle_holds_plain_configuration_only(tmp_path: Path, change: dict[str, str], message: str) -> None:
    folder = Path(shutil.copytree(bundle_path("cine_cmr_dual_lora_classification"), tmp_path / "B"))
    for name, text in change.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    assert [problem for problem in problems(folder) if message in problem], problems(folder)


def zoo_bundle(folder: Path, **files: str) -> Path:
    """A bundle as a model zoo has it."""
    metadata = '{"version": "0.5.0", "monai_version": "1.4.0", "network_data_format": {}}'
    contents = {
        "LICENSE": "Apache",
        "configs/metadata.json": metadata,
        "configs/inference.json": '{"imports": ["$import os"], "network": "$torch.load(@path)"}',
        "docs/README.md": "x",
        "models/model.pt": "x",
        "scripts/net.py": "x = 1",
        **files,
    }
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_bundle_of_another_origin_is_not_judged(tmp_path: Path) -> None:
    for path in (zoo_bundle(tmp_path / "zoo"), zipped(tmp_path / "zoo", tmp_path / "zoo.zip")):
        report = check_bundle(path)
        assert (report.verdict, report.kind, report.passed) == ("foreign", "foreign", False)
        assert [finding.problem for finding in report.findings] == ["was not made by this toolkit: cannot be judged"]
        assert report.examined == ("container",)


def test_a_bundle_that_names_this_package_is_judged(bundle: Path, tmp_path: Path) -> None:
    assert check_bundle(bundle).verdict == "passed"
    (bundle / "configs" / "metadata.json").write_text("{}")
    assert check_bundle(bundle).verdict == "refused"
    (bundle / "checksums.json").unlink()
    assert check_bundle(bundle).verdict == "foreign"
    forged = zoo_bundle(tmp_path / "zoo", **{"configs/train.json": '{"_target_": "monai_fedlora.files.write_text"}'})
    assert check_bundle(forged).verdict == "refused"


def test_a_foreign_bundle_that_holds_a_link_is_refused(tmp_path: Path) -> None:
    folder = zoo_bundle(tmp_path / "zoo")
    (folder / "docs" / "more.md").symlink_to("/etc/hostname")
    assert check_bundle(folder).verdict == "refused"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil": b"x"}, "leads outside"),
        ({"/evil": b"x"}, "leads outside"),
        ({"B/../../evil": b"x"}, "leads outside"),
        ({"B\\evil": b"x"}, "has characters"),
        ({"B/a\nb": b"x"}, "has characters"),
        ({"B/a": b"x", "C/a": b"x"}, "exactly one folder"),
        ({"LICENSE": b"x"}, "exactly one folder"),
        ({"B/a": b"x", "B/A": b"y"}, "occurs twice"),
        ({}, "exactly one folder"),
    ],
)
def test_a_zip_that_leads_outside_is_not_opened(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    path = tmp_path / "a" / "b" / "c" / "B.zip"
    path.write_bytes(raw_zip(members))
    before = sorted(tmp_path.rglob("*"))
    report = check_bundle(path)
    assert report.examined == ("container",)
    assert message in report.findings[0].problem
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_no_zip_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "B.zip").write_bytes(b"PK\x03\x04 nothing")
    assert "is not a sound zip file" in problems(tmp_path / "B.zip")[0]


def test_a_path_without_a_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not exist"):
        check_bundle(tmp_path / "B")


def test_a_report_can_be_written_as_json(bundle: Path) -> None:
    (bundle / "LICENSE").unlink()
    report = check_bundle(bundle).to_json()
    assert json.loads(json.dumps(report)) == json.loads(json.dumps(report))
    assert report["passed"] is False
    assert {"rule": "files", "file": "LICENSE", "problem": "is missing"} in report["findings"]


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=10)
def test_any_changed_byte_is_found(image_exported: Exported, tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = Path(shutil.copytree(image_exported.folder, tmp_path_factory.mktemp("b") / "skin"))
    path = data.draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    report = check_bundle(folder, digest=image_exported.digest)
    assert path.name in {Path(finding.file).name for finding in report.findings}


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.sampled_from(["$1", "%x", "@x", "$@x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


KEYS = st.sampled_from(["_target_", "run", "imports", "a::b", "reader"]) | st.text()


@pytest.mark.slow
@given(key=KEYS, value=VALUES, deep=st.booleans())
@settings(max_examples=60)
def test_no_edit_of_a_config_crashes_the_check(
    image_exported: Exported, tmp_path_factory: Any, key: str, value: Any, deep: bool
) -> None:
    folder = tmp_path_factory.mktemp("b") / "skin"
    shutil.copytree(image_exported.folder / "configs", folder / "configs")
    config = read_json(folder / "configs" / "inference.json")
    (config["evaluator"] if deep else config)[key] = value
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    report = check_bundle(folder)
    assert not report.passed
    assert "configuration" in report.examined
    assert not [finding for finding in report.findings if "could not be examined" in finding.problem]


@pytest.mark.slow
@given(content=st.binary(max_size=200))
def test_no_file_crashes_the_check(tmp_path_factory: Any, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("b") / "skin"
    for name in ("configs/inference.json", "models/model.pt", "models/model.ts", "checksums.json", "a.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder.parent / "b.zip").write_bytes(content)
    assert not check_bundle(folder).passed
    assert not check_bundle(folder.parent / "b.zip").passed
