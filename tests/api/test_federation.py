"""A federation inside one program does what a federation does, and says what is wrong with what it was given."""

from __future__ import annotations

import dataclasses
import logging
import random
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import monai_fedlora as fl
from monai_fedlora.errors import ConfigError, DataError, FedLoraError
from monai_fedlora.files import load_tensors
from tests.api.conftest import Small, images, two_sites

QUICK = {"rounds": 2, "batch_size": 4, "learning_rate": 0.01, "warmup_epochs": 0}
LORA = {"targets": r"blocks\..*", "head": "head", "rank": 2}
CHOICES = {
    "dual_lora": LORA,
    "fedit": LORA,
    "fedopal": LORA,
    "ffa_lora": LORA,
    "local": LORA,
    "feddpa": LORA,
    "fedrep": LORA,
    "ditto": LORA,
    "fedprox": LORA,
    "fedavg": {},
    "linear_probe": {"head": "head"},
}
FAST = {"fedopal", "local", "fedrep", "ditto", "fedavg", "linear_probe"}


def run(choice: Any = None, network: Any = Small, sites: Any = None, **settings: Any) -> fl.Run:
    return fl.federate(network, choice or fl.method("dual_lora", **LORA), sites or two_sites(), **{**QUICK, **settings})


def same_models(one: fl.Run, other: fl.Run) -> bool:
    pairs = [(one.personal(site).state_dict(), other.personal(site).state_dict()) for site in one.plan.sites]
    return all(torch.equal(a[key], b[key]) for a, b in pairs for key in a)


@pytest.fixture(scope="module")
def once() -> fl.Run:
    return run(seed=3)


def test_two_sites_learn_and_their_models_are_the_users_own(once: fl.Run) -> None:
    x, _ = images(8, 5)
    for site in ("north", "south"):
        model = once.personal(site)
        assert type(model) is Small and not model.training
        assert model.state_dict().keys() == Small().state_dict().keys()
        assert model(torch.tensor(x))["hidden"].shape == (8, 8)
    shared = once.shared_model()
    assert type(shared) is Small
    assert not torch.equal(shared.blocks[0].weight, once.personal("north").blocks[0].weight)


def test_the_models_give_what_the_run_has_measured(once: fl.Run) -> None:
    tests = two_sites()
    for site in ("north", "south"):
        for model, network in (("personal", once.personal(site)), ("shared", once.shared_model())):
            found = network(torch.tensor(tests[site].test[0]))["logits"].softmax(1)
            rows = [row for row in once.cases if (row["site"], row["split"], row["model"]) == (site, "test", model)]
            torch.testing.assert_close(
                torch.tensor([[row["p_0"], row["p_1"]] for row in rows]), found, atol=2e-3, rtol=0
            )


def test_the_same_seed_gives_the_same_bits_and_another_does_not(once: fl.Run) -> None:
    assert same_models(once, run(seed=3))
    assert not same_models(once, run(seed=4))


def test_a_given_network_is_copied_and_left_as_it_is() -> None:
    torch.manual_seed(0)
    network = Small().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = run(network=network, rounds=1)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(found.personal("south").embed.weight, network.embed.weight)  # frozen


def test_the_programs_random_numbers_go_on_as_if_nothing_had_happened() -> None:
    states = []
    for act in (lambda: None, lambda: run(rounds=1)):
        torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
        act()
        states.append((torch.rand(1).item(), random.random(), np.random.random()))  # noqa: NPY002
    assert states[0] == states[1]


def test_a_run_without_a_folder_leaves_nothing_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = run(rounds=1)
    assert found.folder is None
    found.personal("north")
    assert not any(tmp_path.iterdir())


def test_a_run_in_a_folder_is_kept_for_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    found = run(rounds=1, folder=folder)
    assert found.folder == folder
    assert stat.S_IMODE((folder / "private" / "run" / "north").stat().st_mode) == 0o700
    with pytest.raises(ConfigError, match=r"holds the results of a run.*resume=True.*overwrite=True"):
        run(rounds=1, folder=folder)
    assert same_models(found, run(rounds=1, folder=folder, overwrite=True))


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("answers", [3, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 5))])
def test_a_killed_run_goes_on_to_the_same_bits(answers: int, tmp_path: Path, whole: fl.Run) -> None:
    left = answers

    def kill(_: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    with pytest.raises(Killed):
        run(rounds=2, folder=tmp_path, on_progress=kill)
    found = run(rounds=2, folder=tmp_path, resume=True)
    assert same_models(found, whole)
    clock = [{key: value for key, value in row.items() if key != "seconds"} for row in found.records]
    assert clock == [{key: value for key, value in row.items() if key != "seconds"} for row in whole.records]
    best = [load_tensors(folder / "best_shared.safetensors")[1]["score"] for folder in (tmp_path, whole.folder)]
    assert best[0] == best[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> fl.Run:
    return run(rounds=2, folder=tmp_path_factory.mktemp("whole") / "run", resume=True)


def test_a_finished_run_is_read_again_and_not_repeated(whole: fl.Run) -> None:
    asked: list[Any] = []
    again = run(rounds=2, folder=whole.folder, resume=True, on_progress=asked.append)
    assert not asked and again.records == whole.records


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("epochs", "did you mean 'local_epochs'"),
        ("compile", "did you mean 'compiler'"),
        ("lr", "choose from (?!.*choice).*learning_rate"),
    ],
)
def test_an_unknown_setting_is_told_the_nearest_of_all(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"no setting '{given}'.*{meant}"):
        run(**{given: 1})


@pytest.mark.parametrize(
    "changes", [{"rounds": 3}, {"learning_rate": 0.1}, {"local_epochs": 2}, {"fine_tune_epochs": 1}]
)
def test_a_run_of_other_settings_is_not_gone_on_with(whole: fl.Run, changes: dict[str, Any]) -> None:
    """And what is told is no more than what is another one."""
    with pytest.raises(ConfigError, match=rf"other settings \([a-z.]*{next(iter(changes))}: [^;]*\); give"):
        run(**{"rounds": 2, **changes}, folder=whole.folder, resume=True)


class Doubled(Small):
    """A network of the same weights that computes something else."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x * 2)


def test_a_run_of_other_cases_or_other_code_is_not_gone_on_with(whole: fl.Run) -> None:
    with pytest.raises(ConfigError, match="other cases"):
        run(rounds=2, folder=whole.folder, resume=True, network=Doubled)
    for split in ("train", "test"):
        sites = two_sites()
        pixels, labels, subjects = getattr(sites["south"], split)
        sites["south"] = dataclasses.replace(sites["south"], **{split: (pixels + 1, labels, subjects)})
        with pytest.raises(ConfigError, match="other cases"):
            run(rounds=2, folder=whole.folder, resume=True, sites=sites)


def test_two_runs_at_the_same_time_give_the_bits_of_one(whole: fl.Run) -> None:
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: run(rounds=2), range(2)))
    assert all(same_models(one, whole) for one in found)


def test_a_run_of_another_network_is_not_gone_on_with(whole: fl.Run) -> None:
    with pytest.raises(ConfigError, match="another experiment"):
        run(rounds=2, folder=whole.folder, resume=True, seed=7)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in CHOICES]
)
def test_every_kind_of_method_trains_an_own_network(name: str) -> None:
    found = run(fl.method(name, **CHOICES[name]), local_epochs=2)
    assert found.results["status"] == "finished"
    model = found.personal("north")
    assert type(model) is Small and model.state_dict().keys() == Small().state_dict().keys()
    x = torch.tensor(two_sites()["north"].test[0])
    rows = [row for row in found.cases if (row["site"], row["split"], row["model"]) == ("north", "test", "personal")]
    torch.testing.assert_close(
        torch.tensor([row["p_1"] for row in rows]), model(x)["logits"].softmax(1)[:, 1], atol=2e-3, rtol=0
    )
    if name in ("local", "fedrep", "ditto"):
        return
    assert type(found.shared_model()) is Small


def test_a_named_list_of_blocks_changes_nothing_but_the_speed(once: fl.Run) -> None:
    cut = run(fl.method("dual_lora", blocks="blocks", **LORA), seed=3, cache_dtype="float32")
    for site in ("north", "south"):
        pairs = zip(once.personal(site).parameters(), cut.personal(site).parameters(), strict=True)
        assert all(torch.allclose(one, other, atol=1e-4) for one, other in pairs)


def test_more_classes_one_class_at_a_site_and_no_validation(caplog: pytest.LogCaptureFixture) -> None:
    (x, y), (z, _) = images(24, 0, classes=3), images(8, 1)
    sites = {"all": fl.SiteData(train=(x[:12], y[:12]), test=(x[12:], y[12:])), "one": fl.SiteData(train=(z, [2] * 8))}
    with caplog.at_level(logging.WARNING):
        found = run(network=lambda: Small(3), sites=sites, classes=["healthy", "mild", "severe"])
    assert not caplog.records
    assert found.results["status"] == "finished"
    assert {row["label"] for row in found.cases if row["site"] == "one"} == {"severe"}
    assert not [row for row in found.records if row["split"] == "validation"]
    assert "no test cases" in str(found.table())


def test_the_weight_of_a_site_is_its_share_of_the_cases() -> None:
    (x, y), (z, w) = images(30, 0), images(2, 1)
    found = run(sites={"large": fl.SiteData(train=(x, y)), "small": fl.SiteData(train=(z, w))}, rounds=1)
    assert found.plan.declared_cases == {"large": 30, "small": 2}


def test_a_random_augmentation_shows_other_images_and_the_same_seed_the_same_bits() -> None:
    from monai.transforms import RandGaussianNoised

    noisy = two_sites(augmentation=[RandGaussianNoised("image", prob=1.0)])
    found = run(sites=noisy, rounds=1)
    assert same_models(found, run(sites=noisy, rounds=1))
    assert not same_models(found, run(rounds=1))


class Lazy(nn.Module):
    """A network whose first layer takes its size from the first image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.LazyLinear(8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.first(x.flatten(1))))


def test_layers_without_a_size_and_batch_normalisation_train(tmp_path: Path) -> None:
    found = run(fl.method("fedavg"), network=Lazy, rounds=1)
    assert torch.equal(found.personal("north").norm.running_mean, torch.zeros(8))


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x.flatten(1)).relu()))


@pytest.mark.parametrize("choice", [fl.method("fedavg"), fl.method("linear_probe", head="head")])
def test_tied_weights_stay_tied_and_sites_stay_apart(choice: fl.MethodChoice) -> None:
    both = run(choice, network=Tied, rounds=1)
    for site in ("north", "south"):
        model = both.personal(site)
        assert torch.equal(model.first.weight, model.second.weight)
    alone = run(choice, network=Tied, rounds=1, sites={"north": two_sites()["north"]})
    losses = [next(row["loss"] for row in each.records if row["split"] == "training") for each in (both, alone)]
    assert losses[0] == losses[1]


class Flat(nn.Module):
    """No logits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sites": {}}, "there is no site"),
        ({"sites": [7]}, "the sites are a list"),
        ({"sites": {"north": 7}}, "a site is a int"),
        ({"sites": {"the server": two_sites()["north"]}}, "cannot name a site"),
        ({"network": 7}, "the network is a int"),
        ({"network": lambda: 7}, "the network is a int"),
        ({"network": lambda: Small(1)}, "at least two"),
        ({"network": Flat, "choice": fl.method("fedavg")}, "one logit per class"),
        ({"network": lambda: Small(3), "classes": ["a", "b"]}, "2 classes, and the network 3 outputs"),
        ({"network": lambda: Small(3)}, "3 outputs, and no label is above 1"),
        (
            {
                "network": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Softmax(1)),
                "choice": fl.method("fedavg"),
            },
            "probabilities",
        ),
        ({"classes": ["a", "a"]}, "different names"),
        (
            {"network": lambda: nn.Sequential(nn.Flatten(), nn.Linear(17, 2)), "choice": fl.method("fedavg")},
            r"does not take images of shape \(1, 4, 4\)",
        ),
        ({"rounds": 0}, "rounds is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"learning_rates": 1.0}, "has no setting 'learning_rates'; did you mean 'learning_rate'"),
        ({"augment": True}, "augment is for networks of the catalogue"),
        ({"resume": True}, "give folder="),
        ({"backbone": "weights.safetensors"}, "backbone is for a network of the catalogue"),
        ({"prompts": {"templates": ["{class}"]}}, "prompts are for a network of the catalogue"),
        ({"choice": fl.method("pfedst", classifier="text")}, "compares images with texts"),
        ({"choice": fl.method("dual_lora", targets="blokcs.*", head="head")}, "blokcs"),
        ({"network": "vit_demo", "choice": fl.method("fedit")}, "north has to be a prepared folder"),
        ({"network": "vit_dmeo"}, "vit_demo"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_reason(given: dict[str, Any], said: str) -> None:
    with pytest.raises(FedLoraError, match=said):
        sites = given.pop("sites") if "sites" in given else two_sites()
        fl.federate(given.pop("network", Small), given.pop("choice", fl.method("dual_lora", **LORA)), sites, **given)


def test_a_head_that_nobody_named_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    targets = LORA["targets"]
    fl.attach(Small(), fl.method("fedavg"))
    assert not caplog.records
    fl.attach(Small(), fl.method("dual_lora", targets=targets, rank=2, blocks=0))
    assert "no head is named" in caplog.text


def test_sites_that_differ_are_named() -> None:
    wide, other = fl.SiteData(train=images(4, 0, size=(1, 4, 5))), two_sites()["north"]
    with pytest.raises(DataError, match=r"the images of north have the shape \(1, 4, 4\), and those of wide"):
        run(sites={"north": other, "wide": wide})
    named = {site: fl.SiteData(train=images(4, 0), classes=[site, "b"]) for site in ("north", "south")}
    with pytest.raises(ConfigError, match="all sites need the same"):
        run(sites=named)
    with pytest.raises(DataError, match="south has no training case"):
        run(sites={"north": other, "south": fl.SiteData(train=([], []))})


def test_a_network_that_is_another_each_time_is_refused() -> None:
    generator = torch.Generator().manual_seed(0)

    def network() -> nn.Module:
        made = Small()
        nn.init.normal_(made.embed.weight, generator=generator)
        return made

    with pytest.raises(ConfigError, match="other weights each time"):
        run(network=network)
