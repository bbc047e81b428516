"""Sites of a few phantoms, a network whose steps take milliseconds, and comparisons of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.comparison.comparison_data import content_hash, load_sites
from monai_fedlora.comparison.comparison_settings import Comparison, Run
from monai_fedlora.comparison.result_rows import LIMITED, NEW
from monai_fedlora.comparison.runner import Task
from monai_fedlora.engines.memory import Memory, using
from monai_fedlora.files import save_tensors, sha256
from monai_fedlora.networks.cinema import SIZES, convvit
from monai_fedlora.site_report import PERSONAL, SHARED
from tests.federated.conftest import BUNDLE, SITES, TEXTS, Prepared, photographs, prepared
from tests.rendering.reading import no_figures

__all__ = ["no_figures", "photographs", "prepared"]

SIZE = "pocket"


@pytest.fixture(autouse=True, scope="session")
def _pocket_size() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shape = dataclasses.replace(
            SIZES["small"], image_size=(16, 16, 2), spacing=(10.0, 10.0, 40.0), embed_dim=16, depth=3, n_heads=2
        )
        patch.setitem(SIZES, SIZE, dataclasses.replace(shape, conv_chans=(4, 8), conv_n_blocks=1))
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def memory() -> Memory:
    """Keeps the phantoms as preprocessed, so that each is read once for all tests."""
    return Memory()


@pytest.fixture(autouse=True)
def _read_once(memory: Memory) -> Iterator[None]:
    with using(memory):
        yield


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory, _pocket_size: None) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = convvit(SIZE, out_chans=2)
    state = {key: value for key, value in network.state_dict().items() if not key.startswith(network.head_prefixes)}
    path = tmp_path_factory.mktemp("pocket") / "backbone.safetensors"
    save_tensors(path, state)
    return path


@pytest.fixture(scope="session")
def make_task(prepared: Prepared, backbone: Path) -> Callable[..., Task]:
    """Return ``make_task(folder, *methods, **changes)``: a task for three sites, one seed and one round."""
    datalists = load_sites(SITES, bundle=BUNDLE, data_root=str(prepared.data))

    def make(folder: Path, *methods: str, **changes: Any) -> Task:
        settings: dict[str, Any] = {
            "methods": {method: {"batch_size": 2, "warmup_epochs": 0} for method in methods},
            "bundle": BUNDLE,
            "size": SIZE,
            "backbone_sha256": sha256(backbone),
            "classes": ("NOR", "ABN"),
            "data": {site: content_hash(datalist) for site, datalist in datalists.items()},
            "rounds": 1,
            "local_epochs": 1,
            "seeds": (0,),
            "new_site_cases": (2, 4),
        }
        return Task(Comparison(**{**settings, **changes}), datalists, str(backbone), folder)

    return make


@pytest.fixture(scope="session")
def text_task(photographs: Prepared) -> Callable[..., Task]:
    """Return ``text_task(folder, *methods, **changes)``: as :func:`make_task`, on photographs and a CLIP."""
    datalists = load_sites(SITES[:2], bundle=TEXTS, data_root=str(photographs.data))

    def make(folder: Path, *methods: str, **changes: Any) -> Task:
        settings: dict[str, Any] = {
            "methods": {method: {"batch_size": 2, "warmup_epochs": 0} for method in methods},
            "bundle": TEXTS,
            "size": "clip_demo",
            "backbone_sha256": photographs.backbone_sha256,
            "classes": datalists[SITES[0]].classes,
            "data": {site: content_hash(datalist) for site, datalist in datalists.items()},
            "rounds": 1,
            "local_epochs": 1,
            "seeds": (0,),
            "new_site_cases": (2,),
        }
        return Task(Comparison(**{**settings, **changes}), datalists, str(photographs.backbone), folder)

    return make


Score = Callable[[Run, str, str, int | None], float | None]


def invented(comparison: Comparison, score: Score, *, key: str = "balanced_accuracy") -> dict[Run, Any]:
    """Results of a comparison that nobody ran: every view that a method has, with ``score(run, site, view, cases)``."""

    def entry(run: Run, site: str, view: str, cases: int | None = None) -> dict[str, Any]:
        value = score(run, site, view, cases)
        return {"site": site, "view": view, "cases": cases, "n": 20, key: value, "auroc": value}

    def metrics(run: Run) -> list[dict[str, Any]]:
        facts = comparison.facts[run.method]
        if run.held_out:
            cases = [0] * facts.has_shared_model + [*comparison.new_site_cases] * bool(facts.private)
            return [entry(run, run.held_out, NEW, n) for n in cases]
        if run.limited:
            return [entry(run, run.limited, LIMITED, run.cases)]
        views = [PERSONAL] + [SHARED] * facts.has_shared_model
        return [entry(run, site, view) for site in comparison.sites for view in views]

    more: Mapping[str, Any] = {"scores": [], "refused": [], "seconds": 60.0, "seconds_shared": 10.0}
    return {run: {"metrics": metrics(run), **more} for run in comparison.runs()}
