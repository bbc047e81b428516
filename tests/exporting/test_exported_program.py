"""The program of torch.export: the same logits as the scripted model, wherever torch is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.classifier import eager_classifier
from monai_fedlora.exporting.exported_program import program_probes, read_program, write_program
from monai_fedlora.exporting.modalities import modality_of
from monai_fedlora.exporting.photograph_modality import CheckedPhotograph, PlainPhotograph
from monai_fedlora.exporting.verify import TOLERANCE, logits
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.transforms.orientation import reference_affine
from monai_fedlora.transforms.photograph import PhotographPreprocessor
from tests.pretended_gpu import PretendedGPU

from .finished_runs import MICRO_VIT, Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


@cache
def script_of(folder: Path) -> nn.Module:
    return torch.jit.load(folder / "models" / "model.ts")


@cache
def program_of(folder: Path) -> nn.Module:
    return read_program(folder / "models" / "model.pt2")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 3, 150, 200), (3, 3, 257, 96), (2, 3, 64, 64), (1, 3, 32, 32), (1, 3, 20, 31)])
def test_photographs_of_any_size_give_the_logits_of_the_script(
    image_exported: Exported, shape: tuple[int, ...]
) -> None:
    image = torch.rand(shape)
    torch.testing.assert_close(
        logits(program_of(image_exported.folder), image),
        logits(script_of(image_exported.folder), image),
        rtol=0,
        atol=TOLERANCE,
    )
    assert image_exported.metadata["model_files"]["models/model.pt2"] == {
        "format": "torch.export",
        "preprocessing": True,
        "input_shape": ["batch", 3, "*", "*"],
        "output": "logits, divided by the temperature",
    }


@pytest.mark.slow
def test_prepared_hearts_give_the_logits_of_the_script(exported: Exported) -> None:
    script, program = script_of(exported.folder), program_of(exported.folder)
    raw = 1000 * torch.rand(3, 2, 40, 37, 6)
    with torch.no_grad():
        affine = reference_affine((5.0, 5.0, 10.0)).expand(3, 4, 4)
        prepared = script.preprocessor(raw, affine)
        torch.testing.assert_close(program(prepared), script(raw, affine), rtol=0, atol=TOLERANCE)
        with pytest.raises(RuntimeError, match=r"shape\[2\]"):
            program(raw)
    described = exported.metadata["model_files"]["models/model.pt2"]
    assert (described["preprocessing"], described["input_shape"]) == (False, ["batch", 2, 32, 32, 4])
    assert "takes a batch of prepared images of 2 x 32 x 32 x 4" in (exported.folder / "docs" / "README.md").read_text()


@pytest.mark.slow
def test_fundus_photographs_are_prepared_outside(make_image_run: Callable[..., Run], tmp_path: Path) -> None:
    modality = modality_of(make_image_run(style="fundus").plan)
    network = build_backbone("micro_vit", out_chans=2).eval()
    write_program(network, modality, tmp_path / "model.pt2", metadata={})
    eager = eager_classifier(network, modality)
    for (raw,), prepared in zip(modality.raw_probes(), program_probes(modality), strict=True):
        found = logits(read_program(tmp_path / "model.pt2"), prepared)
        torch.testing.assert_close(found, logits(eager, raw), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((1, 3, 40, 50), 2.0), "between 0 and 1"),
        (torch.full((1, 3, 40, 50), torch.nan), "between 0 and 1"),
        (torch.full((1, 3, 40, 50), 0.5), "blank"),
        (torch.rand(1, 1, 40, 50), r"shape\[1\]"),
    ],
)
def test_program_refuses_what_is_no_photograph(image_exported: Exported, image: Tensor, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        program_of(image_exported.folder)(image)


@pytest.mark.slow
def test_assertions_stay_on_the_cpu_when_the_program_moves(image_exported: Exported) -> None:
    """A failed assertion on a GPU makes every later call of the process fail."""
    program = move_to_device_pass(torch.export.load(image_exported.folder / "models" / "model.pt2"), "meta")
    asserted = [node.args[0] for node in program.graph.nodes if "_assert_async" in str(node.target)]
    assert len(asserted) == 2
    for number in asserted:
        assert (number.target, dict(number.kwargs)) == (torch.ops.aten.scalar_tensor.default, {})
        assert number.args[0].target == torch.ops.aten.item.default
    moved = [node.kwargs["device"] for node in program.graph.nodes if "device" in node.kwargs]
    assert {str(device) for device in moved} == {"meta"}


@pytest.mark.slow
def test_on_a_gpu_it_refuses_an_image_and_goes_on(image_exported: Exported, gpu: PretendedGPU) -> None:
    program = torch.export.load(image_exported.folder / "models" / "model.pt2")
    moved, image = move_to_device_pass(program, "cuda:0").module(), torch.rand(2, 3, 40, 50)
    expected = logits(program_of(image_exported.folder), image)
    for bad, message in ((image + 1, "between 0 and 1"), (torch.full_like(image, 0.5), "blank")):
        with pytest.raises(RuntimeError, match=message):
            moved(bad.to("cuda"))
        torch.testing.assert_close(logits(moved, image.to("cuda")).cpu(), expected)


@given(
    style=st.sampled_from(["dermoscopy", "plain"]),
    size=st.tuples(st.integers(1, 3), st.integers(2, 70), st.integers(2, 70)),
    seed=st.integers(0, 9),
)
def test_both_preprocessors_are_one(style: str, size: tuple[int, int, int], seed: int) -> None:
    batch, height, width = size
    image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    assert MICRO_VIT.mean is not None and MICRO_VIT.std is not None
    inner = PhotographPreprocessor(style=style, image_size=(32, 32), mean=MICRO_VIT.mean, std=MICRO_VIT.std)
    assert torch.equal(PlainPhotograph(inner)(image), CheckedPhotograph(inner)(image))


@pytest.mark.slow
def test_program_carries_the_metadata_and_no_example(exported: Exported) -> None:
    extra = {"metadata.json": ""}
    program = torch.export.load(str(exported.folder / "models" / "model.pt2"), extra_files=extra)
    assert json.loads(extra["metadata.json"]) == exported.metadata
    assert not program.example_inputs


@pytest.mark.slow
def test_program_runs_where_only_torch_is_installed(image_exported: Exported, tmp_path: Path) -> None:
    image = torch.rand(2, 3, 50, 61)
    torch.save(image, tmp_path / "image.pt")
    blocked = ("peft", "transformers", "nvflare", "monai", "monai_fedlora", "safetensors", "onnx")
    program = (
        f"import sys; [sys.modules.__setitem__(name, None) for name in {blocked}]; import torch; "
        "model = torch.export.load(sys.argv[1]).module(); "
        "torch.save(model(torch.load(sys.argv[2], weights_only=True)).detach(), sys.argv[3])"
    )
    path = str(image_exported.folder / "models" / "model.pt2")
    command = [sys.executable, "-c", program, path, str(tmp_path / "image.pt"), str(tmp_path / "found.pt")]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    torch.testing.assert_close(found, logits(script_of(image_exported.folder), image), rtol=0, atol=TOLERANCE)
