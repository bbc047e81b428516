"""The bundle by MONAI's own rules, and what a person does with it from start to end."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out

from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import WeightsError
from monai_fedlora.files import read_json

NAME = "cine_cmr_dual_lora_classification"
BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / NAME
CONFIGS = BUNDLE / "configs"
KINDS = {"train": "train", "evaluate": "eval", "inference": "infer"}
UNTRAINED = {"backbone": "untrained"}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield value["_target_"]
        for part in value.values():
            yield from targets(part)
    elif isinstance(value, list):
        for part in value:
            yield from targets(part)


def workflow(name: str, **overrides: Any) -> ConfigWorkflow:
    return ConfigWorkflow(
        str(CONFIGS / f"{name}.json"), workflow_type=KINDS[name], logging_file=False, **{**UNTRAINED, **overrides}
    )


def run(name: str, **overrides: Any) -> ConfigWorkflow:
    prepared = workflow(name, **overrides)
    prepared.initialize()
    prepared.run()
    return prepared


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of a few synthetic patients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return site_data("site-1", settings=PhantomSettings(training=5, validation=4, test=4))


@pytest.fixture(scope="module")
def trained(datalist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch, made from a folder that has nothing to do with the bundle."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("train", dataset_dir=str(datalist), epochs=1, batch_size=4)
    return folder / "runs" / NAME / "site-1"


def test_the_metadata_has_what_the_specification_requires(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    shutil.copy(Path(__file__).with_name("metadata_schema.json"), schema)
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(schema))


@pytest.mark.parametrize("change", [{"version": None}, {"supported_apps": []}, {"network_data_format": {"inputs": {}}}])
def test_the_schema_refuses_metadata_that_lacks_something(tmp_path: Path, change: dict) -> None:
    metadata = {**read_json(CONFIGS / "metadata.json"), **change}
    (tmp_path / "metadata.json").write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))
    schema = tmp_path / "schema.json"
    shutil.copy(Path(__file__).with_name("metadata_schema.json"), schema)
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(schema))


def test_the_metadata_names_the_tested_versions(repository: Path) -> None:
    pins = dict(line.split("==") for line in (repository / "constraints.txt").read_text().splitlines() if "==" in line)
    metadata = read_json(CONFIGS / "metadata.json")
    named = dict(metadata["required_packages_version"])
    assert metadata["version"] == named.pop("monai-fedlora")
    named |= {package: metadata[f"{name}_version"] for name, package in (("monai", "monai"), ("pytorch", "torch"))}
    assert {**named, "numpy": metadata["numpy_version"]}.items() <= pins.items()


def test_the_metadata_describes_the_network() -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
        device="cpu",
        **UNTRAINED,
    )


def test_the_metadata_names_the_classes_of_inference() -> None:
    outputs = read_json(CONFIGS / "metadata.json")["network_data_format"]["outputs"]["pred"]
    classes = read_json(CONFIGS / "inference.json")["classes"]
    assert outputs["channel_def"] == {str(index): name for index, name in enumerate(classes)}


@pytest.mark.parametrize("name", KINDS)
def test_every_property_that_monai_knows_is_there(name: str, datalist: Path, trained: Path) -> None:
    overrides = {} if name == "train" else {"run_dir": str(trained)}
    prepared = workflow(name, dataset_dir=str(datalist), **overrides)
    prepared.initialize()
    assert prepared.check_properties() == []
    assert Path(prepared.bundle_root) == BUNDLE
    assert prepared.version == "0.1.0"


def test_the_bundle_holds_configs_and_documents_only() -> None:
    files = {str(path.relative_to(BUNDLE)) for path in BUNDLE.rglob("*") if path.is_file()}
    configs = {f"configs/{name}.json" for name in ("metadata", "train", "evaluate", "inference", "multi_gpu_train")}
    assert files == configs | {"LICENSE", "configs/logging.conf", "docs/README.md"}


@pytest.mark.parametrize("name", [*KINDS, "multi_gpu_train"])
def test_a_config_calls_known_packages_and_holds_no_expression(name: str) -> None:
    config = read_json(CONFIGS / f"{name}.json")
    allowed = ("monai.", "torch.", "ignite.", "monai_fedlora.")
    assert [target for target in targets(config) if not target.startswith(allowed)] == []
    assert [text for text in strings(config) if text.startswith(("$", "%")) or "#" in text] == []


def test_what_the_configs_share_is_the_same_in_all_of_them() -> None:
    train, evaluate, inference = (read_json(CONFIGS / f"{name}.json") for name in KINDS)
    same = {"bundle_root", "site", "size", "backbone", "backbone_sha256", "method", "method_args", "device"}
    same |= {"network_def", "checkpoint_settings", "preprocessing", "postprocessing"}
    for key in same:
        assert train[key] == evaluate[key] == inference[key]
    for key in ("dataset_dir", "datalist", "classes", "selection_metric", "batch_size"):
        assert train[key] == evaluate[key]
    assert evaluate["network"] == inference["network"]
    assert train["network"] == evaluate["network"]["network"]


def test_training_leaves_the_best_and_the_last_epoch(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == ["best.safetensors", "last.safetensors"]
    assert (trained / "best.safetensors").stat().st_size < 200_000


def test_evaluation_scores_the_test_split(trained: Path, datalist: Path, tmp_path: Path) -> None:
    run("evaluate", dataset_dir=str(datalist.parent), run_dir=str(trained), output_dir=str(tmp_path))
    with (tmp_path / "evaluation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    listed = load_datalist(datalist)
    assert [row["study"] for row in rows] == [case.subject for case in listed.test]
    assert [row["label"] for row in rows] == [listed.classes[case.label] for case in listed.test]
    scores = torch.tensor([[float(row[name]) for name in listed.classes] for row in rows])
    expected = classification_metrics(scores, [case.label for case in listed.test])
    metrics = read_json(tmp_path / "metrics.json")
    assert metrics.pop("ece") == pytest.approx(expected.pop("ece"), abs=1e-5)
    assert metrics == expected


def test_a_folder_of_studies_gets_the_predictions_of_the_evaluation(
    trained: Path, datalist: Path, tmp_path: Path
) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    items = load_datalist(datalist).items("test")
    for item in items:
        for frame in ("ed", "es"):
            shutil.copy(item[frame], studies / f"{item['subject']}_{frame}.nii.gz")
    checkpoint = str(trained / "best.safetensors")
    run("inference", dataset_dir=str(studies), checkpoint=checkpoint, output_dir=str(tmp_path / "a"))
    run("inference", dataset_dir=str(datalist), checkpoint=checkpoint, output_dir=str(tmp_path / "b"), batch_size=1)
    for name in ("a", "b"):
        with (tmp_path / name / "predictions.csv").open() as stream:
            rows = list(csv.reader(stream))
        assert rows[0] == ["study", "NOR", "ABN", "prediction"]
        assert sorted(row[0] for row in rows[1:]) == sorted(str(item["subject"]) for item in items)
        assert all(float(row[1]) + float(row[2]) == pytest.approx(1, abs=1e-5) for row in rows[1:])
    first, second = (sorted((tmp_path / name / "predictions.csv").read_text().splitlines()) for name in ("a", "b"))
    assert [row.split(",")[3] for row in first] == [row.split(",")[3] for row in second]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "nowhere/best.safetensors"}, "there is no checkpoint"),
        ({"method": "fedit"}, "with method 'dual_lora'"),
        ({"method_args": {"rank": 4}}, "with method_args {}"),
        ({"classes": ["ABN", "NOR"]}, r"with classes \['NOR', 'ABN'\]"),
        ({"seed": 1}, "another backbone"),
    ],
)
def test_predictions_never_come_from_weights_that_do_not_fit(
    trained: Path, datalist: Path, tmp_path: Path, change: dict, message: str
) -> None:
    settings = {"dataset_dir": str(datalist), "checkpoint": str(trained / "best.safetensors"), **change}
    with pytest.raises(RuntimeError) as caught:
        run("inference", output_dir=str(tmp_path), **settings)
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, WeightsError):
        error = error.__cause__
    with pytest.raises(WeightsError, match=message):
        raise error or AssertionError("no WeightsError among the causes")
    assert list(tmp_path.iterdir()) == []


def test_a_federation_takes_its_objects_from_the_config_and_nothing_is_written(
    datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = ConfigParser()
    config.read_config(CONFIGS / "train.json")
    overrides = {
        "dataset_dir": str(datalist.parent),
        "epochs": 4,
        "batch_size": 4,
        "save_checkpoints": False,
        "trackers": [],
        "val_interval": 0,
        "show_progress": False,
        **UNTRAINED,
    }
    assert overrides.keys() <= config.get().keys()
    for key, value in overrides.items():
        config[key] = value
    network, trainer = config.get_parsed_content("network"), config.get_parsed_content("train::trainer")
    assert trainer.network is network
    assert trainer.optimizer is config.get_parsed_content("optimizer")
    validation, test = (config.get_parsed_content(f"{split}::evaluator") for split in ("validate", "test"))
    assert validation.network is test.network is network
    trainer.run_epochs(1)
    assert trainer.state.epoch == 1
    assert validation.state.metrics == {}
    for evaluator, split in ((validation, "validation"), (test, "test")):
        evaluator.run()
        assert evaluator.state.metric_details["classification"]["n"] == len(load_datalist(datalist).cases(split))
    assert list(tmp_path.iterdir()) == []


def command(*arguments: str, cwd: Path, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MONAI_EVAL_EXPR": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, "-m", "monai.bundle", "run", *arguments, "--backbone", "untrained"],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_the_documented_commands_work_from_any_folder_without_expressions(datalist: Path, tmp_path: Path) -> None:
    for name in ("train", "evaluate", "inference"):
        extra = ["--epochs", "1"] if name == "train" else []
        done = command(
            "--config_file", str(CONFIGS / f"{name}.json"), "--dataset_dir", str(datalist), *extra, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
    written = sorted(path.name for path in (tmp_path / "runs" / NAME / "site-1").iterdir())
    expected = ["best.safetensors", "evaluation.csv", "last.safetensors", "metrics.json", "predictions.csv"]
    assert written == expected


@pytest.mark.slow
def test_two_processes_train_together_and_share_the_cases(datalist: Path, tmp_path: Path) -> None:
    done = command(
        "--config_file",
        str([str(CONFIGS / "train.json"), str(CONFIGS / "multi_gpu_train.json")]),
        "--dataset_dir",
        str(datalist),
        "--epochs=1",
        "--batch_size=2",
        "--output_dir=together",
        cwd=tmp_path,
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("epoch 1, validation") == 1
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == ["best.safetensors", "last.safetensors"]
    alone = command(
        "--config_file",
        str(CONFIGS / "evaluate.json"),
        "--dataset_dir",
        str(datalist),
        "--run_dir=together",
        "--split=validation",
        cwd=tmp_path,
    )
    assert alone.returncode == 0, alone.stdout + alone.stderr
    settings = read_json(tmp_path / "together" / "metrics.json")
    assert f"balanced_accuracy {settings['balanced_accuracy']:.4g}" in done.stdout
    assert f"auroc {settings['auroc']:.4g}" in done.stdout
