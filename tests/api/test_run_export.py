"""The bundle of a network of one's own computes without its class and without this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import monai_fedlora as fl
from monai_fedlora.clinic.bundle import open_bundle
from monai_fedlora.errors import ConfigError, ExportError
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.files import read_json
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from tests.api.conftest import LORA, SETTINGS, Small, images, two_sites
from tests.exporting.running import without_this_package


@pytest.fixture(scope="module")
def exported(in_memory: fl.Run, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return in_memory.export("north", tmp_path_factory.mktemp("bundles") / "north")


def test_the_program_gives_what_the_personal_model_gives(exported: Exported, in_memory: fl.Run) -> None:
    x = torch.tensor(images(5, 9)[0])
    program = torch.export.load(str(exported.folder / "models" / "model.pt2")).module()
    torch.testing.assert_close(program(x), in_memory.personal("north")(x)["logits"], rtol=0, atol=1e-5)


def test_the_weights_are_those_of_the_users_class(exported: Exported, in_memory: fl.Run) -> None:
    network = Small()
    network.load_state_dict(torch.load(exported.folder / "models" / "model.pt", weights_only=True))
    x = torch.tensor(images(2, 9)[0])
    torch.testing.assert_close(network(x)["logits"], in_memory.personal("north")(x)["logits"], rtol=0, atol=1e-5)


def test_the_bundle_passes_the_check_and_says_what_it_takes(exported: Exported) -> None:
    report = check_bundle(exported.folder, digest=exported.digest)
    assert report.passed and report.kind == "exported"
    metadata = read_json(exported.folder / "configs" / "metadata.json")
    image = metadata["network_data_format"]["inputs"]["image"]
    assert (image["modality"], image["num_channels"], image["spatial_shape"]) == ("array", 1, [4, 4])
    assert set(metadata["model_files"]) == {"models/model.pt", "models/model.pt2"}
    assert set(metadata["eval_metrics"]["test"]) == {"personal", "shared"}
    assert metadata["provenance"]["backbone"]["file"].endswith("Small")
    assert "dual_lora" in (exported.folder / "docs" / "README.md").read_text(encoding="utf-8")


def test_a_bundle_without_its_program_does_not_pass(in_memory: fl.Run, tmp_path: Path) -> None:
    folder = in_memory.export("shared", tmp_path / "shared").folder
    (folder / "models" / "model.pt2").unlink()
    found = {(finding.file, finding.rule) for finding in check_bundle(folder).findings}
    assert ("models/model.pt2", "files") in found


def test_the_clinics_commands_send_it_to_its_own_readme(exported: Exported) -> None:
    with pytest.raises(ConfigError, match=r"takes arrays.*docs/README\.md"):
        open_bundle(exported.folder)


@pytest.mark.slow
def test_it_runs_without_this_package(exported: Exported, in_memory: fl.Run, tmp_path: Path) -> None:
    assert check_bundle(exported.folder, run=True).passed
    x, _ = images(3, 9)
    for number, image in enumerate(x):
        (tmp_path / "studies").mkdir(exist_ok=True)
        np.save(tmp_path / "studies" / f"case-{number}.npy", image)
    without_this_package(exported.usage, tmp_path / "studies", tmp_path / "O", cwd=tmp_path).check_returncode()
    rows = (tmp_path / "O" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "study,0,1,error"
    said = torch.tensor([[float(value) for value in row.split(",")[1:3]] for row in rows[1:]])
    expected = in_memory.personal("north")(torch.tensor(x))["logits"].softmax(1)
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-5)
    np.save(tmp_path / "studies" / "wide.npy", np.zeros((1, 4, 5)))
    failed = without_this_package(exported.usage, tmp_path / "studies", tmp_path / "O", cwd=tmp_path)
    assert failed.returncode and "an array of shape (1, 4, 5), not (1, 4, 4)" in failed.stderr


class Choosing(Small):
    """A network whose way depends on what it sees."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().forward(x if x.sum() > 0 else x + 1)


def test_a_network_that_cannot_be_followed_leaves_nothing(tmp_path: Path) -> None:
    run = fl.federate(Choosing, LORA, two_sites(), **{**SETTINGS, "rounds": 1})
    with pytest.raises(ExportError, match=r"torch\.export cannot follow the network"):
        run.export("north", tmp_path / "bundle")
    with pytest.raises(ExportError, match="leave program=False out"):
        run.export("north", tmp_path / "bundle", program=False)
    assert not (tmp_path / "bundle").exists()


def test_a_run_of_an_own_network_is_exported_by_its_program_alone(tmp_path: Path) -> None:
    from monai_fedlora.exporting.bundle_export import export_bundle

    fl.federate(Small, LORA, two_sites(), **{**SETTINGS, "rounds": 1}, folder=tmp_path / "run")
    with pytest.raises(ExportError, match=r"resume=True\)\.export"):
        export_bundle(run=tmp_path / "run", site="north", output=tmp_path / "bundle")


@pytest.mark.slow
def test_a_backbone_of_this_package_that_a_function_made_is_exported_as_well(tmp_path: Path) -> None:
    def network() -> VisionTransformer:
        return VisionTransformer(ViTSettings(image_size=(16, 16), patch=8, dim=12, depth=2, n_heads=2), out_chans=2)

    x, y = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), [0, 1] * 4
    sites = {name: fl.SiteData(train=(x, y)) for name in ("north", "south")}
    run = fl.federate(network, fl.method("dual_lora", rank=2, blocks=1), sites, rounds=1)
    bundle = run.export("north", tmp_path / "bundle").folder
    program = torch.export.load(str(bundle / "models" / "model.pt2")).module()
    torch.testing.assert_close(program(x), run.personal("north")(x), rtol=0, atol=1e-5)
