"""`monai-fedlora methods` counts what each method trains and sends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_fedlora.cli import main
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.cinema import convvit


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if f" {name} " in line]
    return [cell.strip() for cell in line.strip("│┃ ").split("│")]


@pytest.mark.slow
def test_every_method_has_a_row(capsys: Any) -> None:
    assert main(["methods", "--size", "small"]) == 0
    text = capsys.readouterr().out
    for name in method_names():
        assert row(text, name)[1] == get_method(name).summary


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 5])
def test_the_counts_are_those_of_the_network(capsys: Any, classes: int) -> None:
    assert main(["methods", "--size", "small", "--classes", str(classes)]) == 0
    text = capsys.readouterr().out
    dim, rank, blocks = 96, 8, 2
    adapter = blocks * (rank * (dim + dim) + rank * (dim + 2 * dim))
    head = 2 * (dim * classes + classes)
    both = f"{2 * (adapter + head):,}"
    assert row(text, "dual_lora")[2:6] == [f"{2 * adapter + head:,}", f"{adapter + head:,}", both, both]
    assert row(text, "fedit")[2:6] == [f"{adapter + head:,}", f"{adapter + head:,}", both, both]
    assert row(text, "local")[2:6] == [f"{adapter + head:,}", "0", "0", "0"]
    assert row(text, "centralised")[2:6] == [f"{adapter + head:,}", "-", "-", "-"]
    dense = blocks * (dim * dim + dim * 2 * dim)
    assert row(text, "flora")[2:6] == [f"{adapter + head:,}", f"{adapter + head:,}", both, f"{2 * (dense + head):,}"]
    network = convvit("small", out_chans=classes)
    trained = sum(p.numel() for name, p in network.named_parameters() if not name.endswith("pos_embed"))
    assert row(text, "fedavg")[2:6] == [f"{trained:,}", f"{trained:,}", f"{2 * trained:,}", f"{2 * trained:,}"]


@pytest.mark.slow
def test_what_compares_with_texts_is_counted_on_a_clip_alone(capsys: Any) -> None:
    readers = [name for name in method_names() if get_method(name).reads_text]
    assert main(["methods", "--size", "vit_demo"]) == 0
    text = capsys.readouterr().out
    assert all(row(text, name)[2:6] == ["-"] * 4 for name in readers)
    assert f"{', '.join(readers)}: compare images with texts and need a CLIP" in text
    assert main(["methods", "--size", "clip_base_16", "--classes", "8"]) == 0
    text = capsys.readouterr().out
    embed, width = 512, 512
    adapter, probe = 2 * (embed * embed + embed), 8 * (768 + 1)
    for name, count in (("clip_zero_shot", 0), ("clip_adapter", adapter), ("linear_probe", probe)):
        assert row(text, name)[2:6] == [f"{count:,}", f"{count:,}", f"{2 * count:,}", f"{2 * count:,}"]
    assert row(text, "prompt_tuning")[2:4] == [f"{3 * width:,}"] * 2
    assert "need a CLIP" not in text


@pytest.mark.slow
@pytest.mark.parametrize("size", ["vit_demo", "vit_base_16", "clip_base_32"])
def test_any_backbone_of_the_catalogue_can_be_counted(capsys: Any, size: str) -> None:
    assert main(["methods", "--size", size]) == 0
    text = capsys.readouterr().out
    assert all(row(text, name) for name in method_names())


@pytest.mark.slow
def test_the_size_of_the_paper_needs_no_memory_and_no_weights(capsys: Any) -> None:
    before = torch.random.get_rng_state()
    assert main(["methods", "--size", "base"]) == 0
    assert row(capsys.readouterr().out, "dual_lora")[3] == f"{61_440 + 2 * (768 * 2 + 2):,}"
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_unknown_size_is_one_line(capsys: Any) -> None:
    assert main(["methods", "--size", "huge"]) == 2
    assert "huge" in capsys.readouterr().err


def test_a_number_of_classes_below_one_is_one_line(capsys: Any) -> None:
    assert main(["methods", "--classes", "0"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_size_with_fewer_blocks_than_are_adapted_is_one_line(capsys: Any) -> None:
    assert main(["methods", "--size", "tiny"]) == 2
    assert "has only 1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_backbone_for_images_is_counted_too(capsys: Any) -> None:
    assert main(["methods", "--size", "vit_base_16", "--classes", "8"]) == 0
    rank, dim, blocks, targets = 8, 768, 2, 2
    shared = blocks * targets * 2 * rank * dim + dim * 8 + 8
    assert row(capsys.readouterr().out, "fedit")[3] == f"{shared:,}"
