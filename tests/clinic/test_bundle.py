"""Opening a bundle: what it says, what it computes, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.clinic.bundle import Classifier, open_bundle, open_with_files
from monai_fedlora.clinic.trust import Trust
from monai_fedlora.errors import ConfigError, DataError, FedLoraError, OutOfMemory, WeightsError
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.bundle_zip import pack
from monai_fedlora.exporting.check.checker import check_contents
from monai_fedlora.exporting.check.findings import Report
from monai_fedlora.exporting.checksums import write_checksums
from monai_fedlora.exporting.classifier import copy_without_call_stacks
from monai_fedlora.exporting.keys import read_public_key, read_signing_key
from monai_fedlora.exporting.signing import sign_bundle
from monai_fedlora.files import sha256
from monai_fedlora.transforms.orientation import all_orders, reference_affine
from tests.exporting.signing import write_keys

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


@pytest.fixture
def copy(exported: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.folder, tmp_path / "copy"))


def rewrite(bundle: Path, change: Callable[[str, Any], None]) -> None:
    """Change a bundle's configuration in the folder and in the model alike."""
    model = bundle / "models" / "model.ts"
    extra: dict[str, Any] = {"metadata.json": "", "inference.json": ""}
    script = torch.jit.load(str(model), _extra_files=extra)
    for name, text in extra.items():
        content = json.loads(text)
        change(name, content)
        extra[name] = json.dumps(content).encode()
        (bundle / "configs" / name).write_bytes(extra[name])
    buffer = io.BytesIO()
    torch.jit.save(script, buffer, _extra_files=extra)
    copy_without_call_stacks(buffer, model)
    (bundle / "models" / "model.pt2").unlink()
    write_checksums(bundle)


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            OutOfMemory,
            "image is not to blame",
        ),
        (MemoryError(), OutOfMemory, "image is not to blame"),
        (RuntimeError("in TorchScript\nRuntimeError: CUDA out of memory."), OutOfMemory, "image is not to blame"),
        (RuntimeError("CUDA error: device-side assert triggered"), FedLoraError, "the GPU has failed"),
    ],
)
def test_what_the_machine_lacks_is_no_fault_of_the_image(
    classifier: Classifier, raised: Exception, error: type[Exception], message: str
) -> None:
    def failing(*_: torch.Tensor) -> torch.Tensor:
        raise raised

    with pytest.raises(error, match=message) as caught:
        replace(classifier, script=failing, trust=Trust()).answer(torch.rand(2, 8, 8, 4))  # type: ignore[arg-type]
    assert not isinstance(caught.value, DataError)


def test_classifier_knows_what_the_export_wrote(exported: Exported, classifier: Classifier) -> None:
    assert (classifier.name, classifier.version) == ("site-1 model", "1.0.0")
    assert classifier.classes == ("NOR", "ABN")
    assert classifier.modality == "cine"
    assert classifier.style is None
    assert classifier.resampling is None
    assert classifier.takes_affine
    assert classifier.spacing == (5.0, 5.0, 10.0)
    assert classifier.sha256 == sha256(exported.folder / "models" / "model.ts")


@pytest.mark.slow
def test_without_an_orientation_the_logits_of_all_orders_are_averaged(classifier: Classifier) -> None:
    image = 100 * torch.rand(2, 40, 37, 5, generator=torch.Generator().manual_seed(0))
    diagonal = torch.diag(torch.tensor([5.0, 5.0, 10.0, 1.0], dtype=torch.float64))
    with torch.no_grad():
        logits = classifier.script.network(all_orders(classifier.prepare(image, diagonal)))
    assert classifier.probabilities(image, diagonal) == pytest.approx(logits.mean(dim=0).softmax(dim=0).tolist())
    assert classifier.assess(image) == classifier.assess(image, diagonal)
    assert len({round(float(value), 5) for value in logits[:, 0]}) == 16


def test_classifier_of_photographs_knows_its_style(image_classifier: Classifier) -> None:
    assert (image_classifier.modality, image_classifier.style) == ("image", "dermoscopy")
    assert image_classifier.resampling is None


def test_preprocessing_and_network_in_turn_equal_the_model(classifier: Classifier) -> None:
    image = 100 * torch.rand(2, 40, 37, 5, generator=torch.Generator().manual_seed(0))
    affine = reference_affine((4.0, 4.0, 8.0))
    whole = classifier.probabilities(image, affine)
    in_turn = classifier.batch_log_probabilities(classifier.prepare(image, affine)[None])[0].exp()
    torch.testing.assert_close(torch.tensor(whole), in_turn, check_dtype=False)
    assert sum(whole) == pytest.approx(1)


@pytest.mark.parametrize("value", [float("nan"), 1.0])
def test_image_that_the_model_refuses_is_a_data_error_with_its_reason(classifier: Classifier, value: float) -> None:
    with pytest.raises(DataError, match=r"not finite numbers|a frame is blank"):
        classifier.probabilities(torch.full((2, 40, 40, 5), value))


def test_folder_without_a_model_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no exported bundle.*monai-fedlora export"):
        open_bundle(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["configs/metadata.json", "configs/inference.json", "models/model.pt"])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9] + b"}")])
def test_bundle_with_a_missing_or_changed_file_is_refused_by_its_name(
    copy: Path, name: str, change: Callable[[Path], Any]
) -> None:
    change(copy / name)
    with pytest.raises(WeightsError, match=f"does not pass monai-fedlora check.*{name}"):
        open_bundle(copy)


@pytest.mark.parametrize("length", [0, 100, 20_000])
def test_truncated_model_is_refused(copy: Path, length: int) -> None:
    model = copy / "models" / "model.ts"
    model.write_bytes(model.read_bytes()[:length])
    write_checksums(copy)
    with pytest.raises(WeightsError, match=r"models/model\.ts"):
        open_bundle(copy)


@pytest.mark.slow
def test_packed_bundle_is_the_same_model(exported: Exported, classifier: Classifier, tmp_path: Path) -> None:
    pack(exported.folder, tmp_path / "bundle.zip")
    packed = open_bundle(tmp_path / "bundle.zip")
    assert (packed.name, packed.sha256, packed.classes) == (classifier.name, classifier.sha256, classifier.classes)
    image = 100 * torch.rand(2, 40, 37, 5, generator=torch.Generator().manual_seed(0))
    assert packed.probabilities(image) == classifier.probabilities(image)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_is_loaded_is_what_was_checked(
    copy: Path,
    image_exported: Exported,
    classifier: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    bundle = copy
    if kind == "zip":
        bundle = tmp_path / "B.zip"
        pack(copy, bundle)

    def exchanged(*words: Any, **options: Any) -> Report:
        report = check_contents(*words, **options)
        if bundle == copy:
            for name in ("models/model.ts", "configs/metadata.json", "configs/inference.json"):
                shutil.copyfile(image_exported.folder / name, copy / name)
        else:
            bundle.unlink()
            pack(image_exported.folder, bundle)
        return report

    monkeypatch.setattr("monai_fedlora.clinic.bundle.check_contents", exchanged)
    found = open_bundle(bundle)
    assert (found.name, found.modality, found.sha256) == (classifier.name, "cine", classifier.sha256)
    assert found.metadata == classifier.metadata
    image = 100 * torch.rand(2, 40, 37, 5, generator=torch.Generator().manual_seed(0))
    assert found.probabilities(image) == classifier.probabilities(image)
    with pytest.raises(WeightsError, match=r"does not pass|cannot be read") if bundle == copy else nullcontext():
        assert open_bundle(bundle).modality == "image"


@pytest.mark.slow
def test_further_files_are_of_the_copy_that_was_checked(copy: Path, exported: Exported) -> None:
    with open_with_files(copy) as (classifier, contents):
        (copy / "models" / "model.pt").write_bytes(b"hostile")
        assert classifier.sha256 == contents.digests["models/model.ts"]
        assert sha256(contents.path("models/model.pt")) == sha256(exported.folder / "models" / "model.pt")
    assert not contents.root.exists()


@pytest.mark.slow
def test_nothing_stays_behind(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    open_bundle(copy)
    (copy / "LICENSE").unlink()
    with pytest.raises(WeightsError):
        open_bundle(copy)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.slow
def test_a_signature_can_be_demanded(copy: Path, exported: Exported, tmp_path: Path) -> None:
    keys, others = write_keys(tmp_path), write_keys(tmp_path, "other")
    trusted, other = read_public_key(keys.public), read_public_key(others.public)
    bundle = copy.rename(tmp_path / exported.folder.name)
    with pytest.raises(WeightsError, match="is not signed"):
        open_bundle(bundle, keys=[trusted])
    sign_bundle(bundle, read_signing_key(keys.private))
    pack(bundle, tmp_path / "B.zip")
    for path in (bundle, tmp_path / "B.zip"):
        assert open_bundle(path, keys=[other, trusted]).modality == "cine"
        assert open_bundle(path).modality == "cine"
        with pytest.raises(WeightsError, match="is of another key"):
            open_bundle(path, keys=[other])
    (bundle / "LICENSE").write_text("another")
    write_checksums(bundle)
    assert open_bundle(bundle).modality == "cine"
    with pytest.raises(WeightsError, match="LICENSE: is not what was signed"):
        open_bundle(bundle, keys=[trusted])


@pytest.mark.slow
def test_a_signature_that_nobody_looked_at_is_none(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [read_public_key(write_keys(tmp_path).public)]
    monkeypatch.setattr("monai_fedlora.exporting.check.checker.check_signature", lambda contents, *, keys: iter(()))
    with pytest.raises(WeightsError, match="not signed with a key that is trusted here"):
        open_bundle(exported.folder, keys=keys)


def test_another_zip_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "image").write_bytes(b"1")
    pack(tmp_path / "study", tmp_path / "study.zip")
    with pytest.raises(ConfigError, match="was not made by this toolkit: cannot be judged"):
        open_bundle(tmp_path / "study.zip")


@pytest.mark.slow
def test_further_metadata_such_as_statistics_of_features_do_no_harm(copy: Path) -> None:
    def add(name: str, content: Any) -> None:
        if name == "metadata.json":
            content["provenance"]["feature_statistics"] = {"mean": [0.0], "precision": [[1.0]]}

    rewrite(copy, add)
    assert open_bundle(copy).classes == ("NOR", "ABN")


@pytest.mark.slow
def test_metadata_of_another_program_are_refused(copy: Path) -> None:
    def remove(name: str, content: Any) -> None:
        if name == "metadata.json":
            del content["network_data_format"]["outputs"]["pred"]["channel_def"]

    rewrite(copy, remove)
    with pytest.raises((ConfigError, WeightsError), match="do not name classes"):
        open_bundle(copy)


@pytest.mark.slow
def test_expressions_are_not_evaluated(copy: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    def lay(name: str, content: Any) -> None:
        if name == "inference.json":
            content["imports"] = [f"$open({str(trap)!r}, 'w')"]
            content["network"] = f"$open({str(trap)!r}, 'w')"
            content["preprocessing"]["transforms"][2]["keys"] = f"$open({str(trap)!r}, 'w')"

    rewrite(copy, lay)
    with pytest.raises(WeightsError, match=r"configs/inference\.json"):
        open_bundle(copy)
    assert not trap.exists()
