"""The exported bundle: complete, plain, equal to the model in memory, and never wrong in silence."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, load, verify_net_in_out
from monai.transforms import Compose

from monai_fedlora.adapters.lora import SHARED, merge_lora
from monai_fedlora.errors import ExportError, OutOfMemory
from monai_fedlora.exporting import bundle_export, merged_weights
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.exporting.check.findings import VERIFIED
from monai_fedlora.exporting.keys import read_public_key, read_signing_key
from monai_fedlora.networks.cinema import ConvViT, convvit
from monai_fedlora.transforms.cine import cine_preprocessing
from monai_fedlora.transforms.orientation import all_orders, reference_affine, reordered_affine
from tests.exporting.signing import write_keys

from .finished_runs import CLASSES, MICRO, Run, temperature_of, write_pair
from .running import (
    failing_inference,
    infer,
    loaded_without_this_package,
    read_errors,
    read_table,
    without_this_package,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


def probabilities(network: ConvViT, folder: Path, *, temperature: float) -> dict[str, list[float]]:
    """What the training pipeline gives for every pair of a folder, calibrated."""
    pipeline = Compose(cine_preprocessing(image_size=MICRO.image_size, spacing=MICRO.spacing))
    found = {}
    for path in sorted(folder.glob("*_ed.nii.gz")):
        study = path.name.removesuffix("_ed.nii.gz")
        item = pipeline({"ed": str(path), "es": str(folder / f"{study}_es.nii.gz")})
        images = all_orders(item["image"]) if item["placeholder"] else item["image"][None]
        with torch.no_grad():
            found[study] = (network(images).mean(dim=0) / temperature).softmax(dim=0).tolist()
    return found


PASSPHRASE = b"open sesame, please"


def texts(bundle: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a bundle, archives unpacked."""
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{path.name}/{name}", name.encode() + archive.read(name)) for name in archive.namelist())
        else:
            yield path.name, path.read_bytes()


def test_too_little_memory_is_no_fault_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(bundle_export, "read_exportable", full)
    with pytest.raises(OutOfMemory, match=r"while exporting a model \(CUDA out of memory"):
        export_bundle(run=tmp_path, site="site-1", output=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_bundle_has_the_files_of_the_specification(exported: Exported) -> None:
    assert {str(path.relative_to(exported.folder)) for path in exported.folder.rglob("*") if path.is_file()} == {
        "LICENSE",
        "checksums.json",
        "configs/inference.json",
        "configs/metadata.json",
        "docs/CLAIM.md",
        "docs/README.md",
        "models/model.pt",
        "models/model.pt2",
        "models/model.ts",
    }
    assert {path.name for path in exported.folder.parent.iterdir()} == {exported.folder.name}


def test_weights_are_plain_and_those_of_the_backbone(exported: Exported, stored_run: Run) -> None:
    state = torch.load(exported.folder / "models" / "model.pt", weights_only=True)
    plain = convvit("micro", out_chans=2)
    assert state.keys() == plain.state_dict().keys()
    assert {type(value) for value in state.values()} == {torch.Tensor}
    plain.load_state_dict(state, strict=True)
    image = torch.rand(2, 2, *MICRO.image_size)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(image), stored_run.networks["site-1"](image), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_inference_equals_the_model_in_memory(
    exported: Exported, stored_run: Run, studies: Path, tmp_path: Path
) -> None:
    header, rows = read_table(infer(exported.folder, studies, tmp_path / "O"))
    expected = probabilities(stored_run.networks["site-1"], studies, temperature=temperature_of(exported))
    assert header == ["study", *CLASSES]
    assert list(rows) == sorted(expected) == ["a_3", "p.2 b", "p1"]
    for study, row in rows.items():
        assert row == pytest.approx(expected[study], abs=1e-4)
    assert len({round(row[0], 4) for row in rows.values()}) == 3


@pytest.mark.slow
def test_inference_again_replaces_the_table(exported: Exported, studies: Path, tmp_path: Path) -> None:
    infer(exported.folder, studies, tmp_path / "O")
    for path in studies.glob("p1_*"):
        path.unlink()
    _, rows = read_table(infer(exported.folder, studies, tmp_path / "O"))
    assert list(rows) == ["a_3", "p.2 b"]


@pytest.mark.slow
@pytest.mark.parametrize("frame", ["ed", "es"])
def test_missing_partner_is_named(exported: Exported, studies: Path, tmp_path: Path, frame: str) -> None:
    (studies / f"p1_{frame}.nii.gz").unlink()
    with failing_inference(exported.folder, studies, tmp_path / "O") as causes:
        assert f"{studies}/p1_{frame}.nii.gz" in causes()


@pytest.mark.slow
@pytest.mark.parametrize("exists", [True, False])
def test_folder_without_studies_is_named(exported: Exported, tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "D").mkdir()
    with failing_inference(exported.folder, tmp_path / "D", tmp_path / "O") as causes:
        assert f"{tmp_path}/D/*_ed.nii.gz" in causes()


def test_missing_model_file_is_named(exported: Exported, studies: Path, tmp_path: Path) -> None:
    shutil.copytree(exported.folder, tmp_path / "B")
    (tmp_path / "B" / "models" / "model.ts").unlink()
    with failing_inference(tmp_path / "B", studies, tmp_path / "O") as causes:
        assert "models/model.ts" in causes()


@pytest.mark.slow
def test_frames_on_different_grids_are_refused(exported: Exported, studies: Path, tmp_path: Path) -> None:
    path = studies / "p1_es.nii.gz"
    image = nibabel.load(path)
    moved = image.affine.copy()
    moved[2, 3] += 10
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), moved), path)
    with failing_inference(exported.folder, studies, tmp_path / "O") as causes:
        assert "affine matrix of all images should be the same" in causes()


@pytest.mark.slow
def test_frames_of_different_size_are_refused(exported: Exported, studies: Path, tmp_path: Path) -> None:
    write_pair(tmp_path, "p1", shape=(60, 50, 4), spacing=(4.0, 4.0, 10.0))
    shutil.copy(tmp_path / "p1_es.nii.gz", studies)
    with failing_inference(exported.folder, studies, tmp_path / "O") as causes:
        assert "spatial_shape of all images should be the same" in causes()


@pytest.mark.slow
def test_truncated_study_is_refused(exported: Exported, studies: Path, tmp_path: Path) -> None:
    path = studies / "p1_ed.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    with failing_inference(exported.folder, studies, tmp_path / "O"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "not finite numbers"), (np.inf, "not finite numbers"), (7.0, "frame is blank")]
)
def test_unusable_voxels_are_refused(
    exported: Exported, studies: Path, tmp_path: Path, value: float, message: str
) -> None:
    path = studies / "p1_es.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, value, dtype=np.float32), image.affine), path)
    with failing_inference(exported.folder, studies, tmp_path / "O") as causes:
        assert message in causes()


@pytest.mark.slow
def test_a_segmentation_is_no_study(exported: Exported, studies: Path, tmp_path: Path) -> None:
    path = studies / "p1_ed.nii.gz"
    image = nibabel.load(path)
    levels = np.asarray(image.dataobj)
    labels = np.digitize(levels, np.quantile(levels, [0.5, 0.7, 0.9])).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), path)
    with failing_inference(exported.folder, studies, tmp_path / "O") as causes:
        assert "label map" in causes()
    assert "label map" in read_errors(tmp_path / "O" / "predictions.csv")["p1"]


@pytest.mark.slow
def test_bad_studies_end_none_of_the_others(
    exported: Exported, stored_run: Run, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # no worker sends bytes that are no text
    path = studies / "a_3_ed.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, np.nan, dtype=np.float32), image.affine), path)
    (studies / "p.2 b_es.nii.gz").write_bytes(b"no archive")
    for frame in ("ed", "es"):
        shutil.copy(studies / f"p1_{frame}.nii.gz", studies / os.fsdecode(b"l\xe9sion, 2_%s.nii.gz" % frame.encode()))
    (studies / "q_ed.nii.gz").touch()
    (studies / "r_sa.nii").touch()
    (studies / "notes, 1.txt").touch()
    with failing_inference(exported.folder, studies, tmp_path / "O") as causes:
        assert "3 of 5 studies could not be classified, see " in causes()
    assert (tmp_path / "O" / "left_out.csv").read_text() == 'file\n"notes, 1.txt"\nr_sa.nii\n'
    errors = read_errors(tmp_path / "O" / "predictions.csv")
    assert list(errors) == sorted(errors) == ["a_3", r"l\xe9sion, 2", "p.2 b", "p1", "q"]
    assert [study for study, error in errors.items() if not error] == [r"l\xe9sion, 2", "p1"]
    assert f"{path} and " in errors["a_3"] and "not finite numbers" in errors["a_3"]
    assert f"{studies}/p.2 b_es.nii.gz" in errors["p.2 b"]
    assert f"{studies}/q_es.nii.gz" in errors["q"]
    (studies / "q_ed.nii.gz").unlink()
    for name in ("a_3", "p.2 b"):
        for frame in ("ed", "es"):
            (studies / f"{name}_{frame}.nii.gz").unlink()
    _, rows = read_table(infer(exported.folder, studies, tmp_path / "O"))
    expected = probabilities(stored_run.networks["site-1"], studies, temperature=temperature_of(exported))
    assert rows["p1"] == rows[r"l\xe9sion, 2"] == pytest.approx(expected["p1"], abs=1e-4)


@pytest.mark.slow
def test_log_names_the_study_that_fails(
    exported: Exported, studies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (studies / "p.2 b_es.nii.gz").write_bytes(b"")
    with failing_inference(exported.folder, studies, tmp_path / "O"):
        pass
    shown = [record.getMessage() for record in caplog.records if record.name == "DataStats"]
    assert "p.2 b" in shown[1]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 32, 32, 4), (2, 32, 32, 4), (1, 2, 32, 32)])
def test_script_refuses_other_shapes(exported: Exported, shape: tuple[int, ...]) -> None:
    script = torch.jit.load(exported.folder / "models" / "model.ts")
    with pytest.raises(torch.jit.Error, match="end-diastolic and the end-systolic frame"):
        script(torch.rand(shape))


def test_configuration_has_every_property_monai_expects(exported: Exported, studies: Path, tmp_path: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(exported.folder / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(exported.folder),
        dataset_dir=str(studies),
        output_dir=str(tmp_path),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_monai_verifies_inputs_and_outputs(exported: Exported) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(exported.folder / "configs" / "metadata.json"),
        config_file=str(exported.folder / "configs" / "inference.json"),
        bundle_root=str(exported.folder),
        any=37,
    )


def test_configuration_needs_nothing_of_this_package(exported: Exported) -> None:
    text = (exported.folder / "configs" / "inference.json").read_text()
    assert "monai_fedlora" not in text
    assert text.count('"$') <= 40


@pytest.mark.slow
def test_monai_loads_the_script_with_its_metadata(exported: Exported, stored_run: Run) -> None:
    network, metadata, extra = load(
        exported.folder.name,
        bundle_dir=exported.folder.parent,
        load_ts_module=True,
        device="cpu",
        config_files=("inference.json",),
    )
    assert metadata == exported.metadata
    assert json.loads(extra["inference.json"]) == json.loads(
        (exported.folder / "configs" / "inference.json").read_text()
    )
    images, affine = torch.rand(3, 2, 40, 50, 7), reference_affine((4.0, 4.0, 8.0))[None]
    one_by_one = torch.cat([network(image[None], affine) for image in images])
    torch.testing.assert_close(network(images, affine.expand(3, 4, 4)), one_by_one)


def test_nothing_in_a_bundle_tells_of_this_machine_or_another_site(exported: Exported, stored_run: Run) -> None:
    secrets = ["clinic-b", "clinic-c", str(Path.home()), str(stored_run.workspace), str(Path(__file__).parents[2])]
    secrets += [str(stored_run.backbone.parent), sys.prefix, "/site-packages/"]
    for name, content in texts(exported.folder):
        assert [secret for secret in secrets if secret.encode() in content] == [], name


@pytest.mark.slow
def test_shared_bundle_drops_the_private_part(run: Run, studies: Path, tmp_path: Path) -> None:
    found = export_bundle(**run.options(tmp_path / "B", "shared", program=False))
    network = run.networks["clinic-b"]
    with run.plan.build_method().shared_only(network):
        expected = probabilities(network, studies, temperature=1)
    _, rows = read_table(infer(found.folder, studies, tmp_path / "O"))
    assert {study: pytest.approx(row, abs=1e-4) for study, row in expected.items()} == rows
    assert found.metadata["provenance"]["site"] is None
    for name, content in texts(found.folder):
        assert [site for site in run.plan.sites if site.encode() in content] == [], name


@pytest.mark.slow
def test_export_from_the_private_folder_alone(run: Run, tmp_path: Path) -> None:
    only = tmp_path / "hospital"
    shutil.copytree(run.personal().parent, only)
    shutil.rmtree(run.workspace)
    found = export_bundle(**run.options(tmp_path / "B", run=only, program=False))
    assert found.metadata["provenance"]["training_cases"] == 20


def test_existing_output_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "B").mkdir()
    (tmp_path / "B" / "precious").write_text("x")
    with pytest.raises(ExportError, match="exists"):
        export_bundle(**run.options(tmp_path / "B"))
    assert (tmp_path / "B" / "precious").read_text() == "x"


@pytest.mark.slow
@pytest.mark.parametrize("step", ["merge", "script", "program"])
def test_difference_stops_the_export(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    if step == "merge":
        monkeypatch.setattr(merged_weights, "merge_lora", lambda network: merge_lora(network, [SHARED]))
    else:
        name = {"script": "scripted_model", "program": "write_program"}[step]
        make, other = getattr(bundle_export, name), convvit("micro", out_chans=2)
        monkeypatch.setattr(bundle_export, name, lambda network, *args, **kwargs: make(other, *args, **kwargs))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError, match="logits"):
        export_bundle(**run.options(tmp_path / "B", program=step == "program"))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_packed_and_signed_bundle_is_the_folder_in_a_zip(run: Run, exported: Exported, tmp_path: Path) -> None:
    keys = write_keys(tmp_path, passphrase=PASSPHRASE)
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    key = read_signing_key(keys.private, tmp_path / "passphrase")
    before = {*tmp_path.iterdir(), tmp_path / "site-1 model.zip"}
    found = export_bundle(**run.options(tmp_path / "site-1 model", program=False, packed=True, key=key))
    assert found.folder == tmp_path / "site-1 model.zip" and {*tmp_path.iterdir()} == before
    report = check_bundle(found.folder, digest=found.digest, keys=[read_public_key(keys.public)])
    assert (report.findings, report.signature) == ((), VERIFIED)
    with zipfile.ZipFile(found.folder) as archive:
        archive.extractall(tmp_path / "unpacked")
        names = {name.removeprefix("site-1 model/") for name in archive.namelist()}
        weights = archive.read("site-1 model/models/model.pt")
    plain = {str(p.relative_to(exported.folder)) for p in exported.folder.rglob("*") if p.is_file()}
    assert names == plain - {"models/model.pt2"} | {"model.sig"}
    size = (keys.scalar.bit_length() + 7) // 8
    secrets = [keys.scalar.to_bytes(size, order) for order in ("big", "little")]  # type: ignore[arg-type]
    secrets += [b"PRIVATE KEY", PASSPHRASE, *keys.private.read_bytes().splitlines()[1:-1], str(keys.private).encode()]
    for name, content in texts(tmp_path / "unpacked"):
        assert [secret for secret in secrets if secret in content] == [], name
    assert weights == (exported.folder / "models" / "model.pt").read_bytes()
    with pytest.raises(ExportError, match="exists"):
        export_bundle(**run.options(tmp_path / "site-1 model.zip", packed=True))


@pytest.mark.slow
def test_one_heart_gives_one_answer_in_every_order_of_its_files(exported: Exported, tmp_path: Path) -> None:
    """By MONAI alone: the module reorders what MONAI reads by the affine that the configuration hands over."""
    studies, orders = tmp_path / "studies", {"a": "012", "b": "210", "c": "120", "d": "021"}
    studies.mkdir()
    write_pair(tmp_path, "p", shape=(60, 50, 5), spacing=(4.0, 4.0, 10.0))
    for number, (study, order) in enumerate(orders.items()):
        for frame in ("ed", "es"):
            image = nibabel.load(tmp_path / f"p_{frame}.nii.gz")
            axes, backwards = [int(axis) for axis in order], [bool(number >> axis & 1) for axis in range(3)]
            affine = reordered_affine(torch.from_numpy(image.affine), list(image.shape), axes, backwards).numpy()
            steps = tuple(slice(None, None, -1) if back else slice(None) for back in backwards)
            voxels = np.ascontiguousarray(np.transpose(np.asarray(image.dataobj), axes)[steps])
            nibabel.save(nibabel.Nifti1Image(voxels, affine), studies / f"{study}_{frame}.nii.gz")
    _, rows = read_table(infer(exported.folder, studies, tmp_path / "O"))
    assert list(rows) == list(orders)
    for row in rows.values():
        assert row == pytest.approx(rows["a"], abs=1e-4)


@pytest.mark.slow
def test_a_program_loads_and_runs_it_where_only_monai_is_installed(
    exported: Exported, stored_run: Run, studies: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    found = loaded_without_this_package(exported.folder, studies, tmp_path / "O", cwd=tmp_path / "elsewhere")
    expected = probabilities(stored_run.networks["site-1"], studies, temperature=temperature_of(exported))
    assert found == {study: pytest.approx(row, abs=1e-4) for study, row in expected.items()}
    _, rows = read_table(tmp_path / "O" / "predictions.csv")
    assert rows == {study: pytest.approx(row, abs=1e-4) for study, row in expected.items()}


@pytest.mark.slow
def test_printed_command_runs_where_only_monai_is_installed(
    exported: Exported, stored_run: Run, studies: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    places = {"studies": studies, "output": tmp_path / "O", "cwd": elsewhere}
    without_this_package(exported.usage, **places).check_returncode()
    header, rows = read_table(tmp_path / "O" / "predictions.csv")
    assert header == ["study", *CLASSES]
    expected = probabilities(stored_run.networks["site-1"], studies, temperature=temperature_of(exported))
    assert rows == {study: pytest.approx(row, abs=1e-4) for study, row in expected.items()}

    (studies / "p1_es.nii.gz").unlink()
    failed = without_this_package(exported.usage, **places)
    assert failed.returncode != 0
    assert f"{studies}/p1_es.nii.gz" in failed.stderr
    assert "p1" in failed.stdout
    errors = read_errors(tmp_path / "O" / "predictions.csv")
    assert [study for study, error in errors.items() if error] == ["p1"]
