"""Code of other packages in a federation: named by the plan with its version, and run by who trusts it alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

from monai_fedlora.cli import main
from monai_fedlora.errors import ConfigError, PolicyError
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.flare_context import load_plan
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.site_policy import Policy, job_hash
from monai_fedlora.files import write_json
from tests.federated.conftest import Prepared
from tests.helpers import make_manifest, make_plan
from tests.plugin_packages import Install
from tests.test_catalogues import METHOD

RAN = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n"


@pytest.fixture
def package(install: Install) -> Path:
    """A package with the method "quiet", which leaves a file when it is imported."""
    return install("quiet-lora", {"methods:quiet": "quiet_lora:Quiet"}, {"quiet_lora": RAN + METHOD})


def imported(package: Path) -> bool:
    return (package / "quiet_lora.ran").exists()


def test_a_plan_holds_the_version_of_every_package_whose_names_it_uses(package: Path, install: Install) -> None:
    plan = make_plan(method="quiet")
    assert plan.to_json()["plugins"] == {"quiet-lora": "1.0"}
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert "plugins" not in make_plan().to_json()
    for said, why in (
        ({"quiet-lora": "0.9"}, "quiet-lora 0.9, and 1.0 is installed here"),
        ({"quieter": "1.0"}, "quieter 1.0, and no such package is installed here"),
        ({"numpy": __import__("numpy").__version__}, "plug-ins are of numpy, and here they are of quiet-lora"),
        ({"quiet-lora": 1}, "must be a mapping"),
        ("quiet-lora", "must be a mapping"),
    ):
        with pytest.raises(ConfigError, match=why):
            Plan.from_json({**plan.to_json(), "plugins": said})


def test_another_version_is_another_experiment_and_another_job(package: Path, install: Install) -> None:
    plan = make_plan(method="quiet")
    install(
        "quieter", {"methods:quieter": "quieter_lora:Quiet"}, {"quieter_lora": METHOD.replace('"quiet"', '"quieter"')}
    )
    other = make_plan(method="quieter")
    other_fingerprint, other_hash = other.fingerprint, job_hash(other, make_manifest())
    object.__setattr__(other, "plugins", {"quieter": "1.1"})
    assert len({plan.fingerprint, other_fingerprint, other.fingerprint}) == 3
    assert job_hash(other, make_manifest()) != other_hash


def context(folder: Path) -> FLContext:
    """An NVFlare process of an end whose workspace is ``folder``, with a job that names the method "quiet"."""
    found = FLContext()
    for key, value in {FLContextKey.APP_ROOT: folder / "app", FLContextKey.WORKSPACE_ROOT: folder}.items():
        found.set_prop(key, str(value), private=True, sticky=False)
    return found


@pytest.mark.parametrize("says_so", [True, False])
def test_an_end_that_does_not_trust_the_package_imports_nothing_of_it(
    package: Path, tmp_path: Path, says_so: bool
) -> None:
    value = {**make_plan().to_json(), "method": "quiet"}
    if says_so:
        value["plugins"] = {"quiet-lora": "1.0"}
    write_json(tmp_path / "app" / "config" / "plan.json", value)
    with pytest.raises(PolicyError, match=r"^plugins: .*quiet-lora 1.0.*monai-fedlora policy .*--plugins quiet-lora"):
        load_plan(context(tmp_path))
    assert not imported(package)
    write_json(tmp_path / "local" / "policy.json", {"plugins": ["Quiet_LoRA"]})
    assert load_plan(context(tmp_path)).method == "quiet"
    assert imported(package)


def test_trust_that_is_taken_back_ends_a_run_at_its_next_message() -> None:
    plan = make_plan()
    object.__setattr__(plan, "plugins", {"quiet-lora": "1.0"})
    for policy in (Policy(plugins=("quiet_lora",)), Policy(plugins=None)):
        policy.check_plan(plan)
    for policy in (Policy(), Policy(plugins=("quiet",))):
        with pytest.raises(PolicyError, match=r"^plugins: .*quiet-lora 1.0"):
            policy.check_plan(plan)


@pytest.mark.slow
def test_who_runs_a_federation_in_a_process_of_their_own_trusts_what_they_installed(
    package: Path, prepared: Prepared, tmp_path: Path
) -> None:
    plan = prepared.plan(method="quiet", rounds=1)
    assert run_in_process(plan, folder=tmp_path / "run", **prepared.places)["status"] == "finished"
    with pytest.raises(PolicyError, match=r"^plugins: .*quiet-lora"):
        Site(name="site-1", plan=plan, private_root=tmp_path, source=prepared.source)


def test_a_job_is_refused_before_its_simulation_where_the_policy_does_not_trust_its_package(
    package: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    plan = prepared.plan(method="quiet", rounds=1)
    write_job(plan, build_shared(plan)[0], tmp_path / "job")
    (package / "quiet_lora.ran").unlink()
    monkeypatch.delenv("MONAI_FEDLORA_POLICY")
    assert main(["simulate", str(tmp_path / "job"), "--workspace", str(tmp_path / "run")]) == 2
    assert main(["approve", str(tmp_path / "job"), "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("monai-fedlora policy --output DIR --plugins quiet-lora") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["installed", "job"]


def test_a_site_sees_whose_code_it_approves(
    package: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    plan = prepared.plan(method="quiet", rounds=1)
    write_job(plan, build_shared(plan)[0], tmp_path / "job")
    assert main(["policy", "--output", str(tmp_path), "--plugins", "quiet_lora", "--methods", "quiet"]) == 0
    assert main(["approve", str(tmp_path / "job"), "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "code of quiet-lora 1.0" in " ".join(said.split())
    policy = Policy.load(tmp_path / "policy.json")
    assert (policy.plugins, policy.methods, len(policy.approved)) == (("quiet_lora",), ("quiet",), 1)
    assert main(["policy", "--output", str(tmp_path), "--plugins", "quiet-loro"]) == 2
    assert "did you mean 'quiet-lora'" in capsys.readouterr().err
    assert main(["policy", "--output", str(tmp_path), "--plugins", ""]) == 0
    assert Policy.load(tmp_path / "policy.json").plugins == ()


def test_plug_ins_are_listed_with_their_package_and_a_broken_one_is_noted(
    package: Path, install: Install, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    install("broken", {"methods:broken": "broken_method:Method"}, {"broken_method": "import nowhere"})
    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    assert "added by quiet-lora 1.0" in said and "dual_lora" in said
    assert "note: 'broken' cannot be imported from broken 1.0" in said
