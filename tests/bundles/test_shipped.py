"""Every bundle by MONAI's own rules, and what a person does with it from start to end."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out

from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.exporting.check.metadata import metadata_schema
from monai_fedlora.files import read_json, write_json
from monai_fedlora.resources import BUNDLES_VARIABLE, bundle_configs, bundle_path, list_bundles
from tests.bundles.shipped import (
    BUNDLES,
    CLASSIFIERS,
    KINDS,
    SHARED,
    UNTRAINED,
    Shipped,
    copy_studies,
    random_clip,
    root_cause,
    strings,
    targets,
)


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda bundle: bundle.name)
def bundle(request: pytest.FixtureRequest) -> Shipped:
    """One bundle after the other."""
    shipped: Shipped = request.param
    return shipped


@pytest.fixture(scope="module")
def datalist(bundle: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of a few synthetic cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return bundle.site()


@pytest.fixture(scope="module")
def trained(bundle: Shipped, datalist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch, made from a folder that has nothing to do with the bundle."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        bundle.run("train", dataset_dir=str(datalist), epochs=1, batch_size=4)
    return folder / "runs" / bundle.name / "site-1"


@pytest.fixture
def schema(tmp_path: Path) -> str:
    """The package's schema of metadata, as a file that MONAI reads."""
    (tmp_path / "schema.json").write_text(json.dumps(metadata_schema()))
    return str(tmp_path / "schema.json")


def test_every_bundle_is_tested() -> None:
    assert sorted(bundle.name for bundle in BUNDLES) == list_bundles()


def test_the_metadata_has_what_the_specification_requires(bundle: Shipped, schema: str) -> None:
    verify_metadata(meta_file=str(bundle.config("metadata")), filepath=schema)


@pytest.mark.parametrize("change", [{"version": None}, {"supported_apps": []}, {"network_data_format": {"inputs": {}}}])
def test_the_schema_refuses_metadata_that_lacks_something(
    bundle: Shipped, schema: str, tmp_path: Path, change: dict
) -> None:
    metadata = {**read_json(bundle.config("metadata")), **change}
    (tmp_path / "metadata.json").write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=schema)


def test_the_metadata_names_the_tested_versions(bundle: Shipped, repository: Path) -> None:
    pins = dict(line.split("==") for line in (repository / "constraints.txt").read_text().splitlines() if "==" in line)
    metadata = read_json(bundle.config("metadata"))
    named = dict(metadata["required_packages_version"])
    assert metadata["version"] == named.pop("monai-fedlora")
    named |= {package: metadata[f"{name}_version"] for name, package in (("monai", "monai"), ("pytorch", "torch"))}
    assert {**named, "numpy": metadata["numpy_version"]}.items() <= pins.items()


def test_the_metadata_describes_the_network(bundle: Shipped) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle.config("metadata")),
        config_file=str(bundle.config("inference")),
        device="cpu",
        **UNTRAINED,
    )


def test_the_metadata_names_the_classes_of_inference(bundle: Shipped) -> None:
    outputs = read_json(bundle.config("metadata"))["network_data_format"]["outputs"]["pred"]
    assert tuple(read_json(bundle.config("inference"))["classes"]) == bundle.classes
    if bundle.gives_masks:
        assert outputs["num_channels"] == len(outputs["channel_def"]) == 2
        assert outputs["spatial_shape"][0] == 1 + len(bundle.classes)
        return
    assert outputs["channel_def"] == {str(index): name for index, name in enumerate(bundle.classes)}
    assert outputs["num_channels"] == len(bundle.classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_property_that_monai_knows_is_there(bundle: Shipped, name: str, datalist: Path, trained: Path) -> None:
    settings = {} if name == "train" else {"run_dir": str(trained)}
    prepared = bundle.workflow(name, dataset_dir=str(datalist), **settings)
    prepared.initialize()
    assert prepared.check_properties() == []
    assert Path(prepared.bundle_root) == bundle.folder
    assert prepared.version == "0.1.0"


def test_a_bundle_holds_configs_and_documents_only(bundle: Shipped) -> None:
    files = {str(path.relative_to(bundle.folder)) for path in bundle.folder.rglob("*") if path.is_file()}
    configs = {f"configs/{name}.json" for name in ("metadata", "train", "inference", *bundle.all_overrides)}
    assert files == configs | {"LICENSE", "configs/logging.conf", "docs/README.md"}


def test_a_config_calls_known_packages_and_holds_no_expression(bundle: Shipped) -> None:
    allowed = ("monai.", "torch.", "ignite.", "monai_fedlora.")
    for name in (*KINDS, "multi_gpu_train", *bundle.all_overrides):
        config = bundle.merged(name)
        assert [target for target in targets(config) if not target.startswith(allowed)] == [], name
        assert [text for text in strings(config) if text.startswith(("$", "%")) or "#" in text] == [], name


def test_what_the_configs_share_is_the_same_in_all_of_them(bundle: Shipped) -> None:
    train, evaluate, inference = (bundle.merged(name) for name in KINDS)
    for key in {"site", "size", "backbone", "backbone_sha256", "method", "method_args", "device"}:
        assert train[key] == evaluate[key] == inference[key]
    for key in ("task", "outputs", "prepare", "postprocessing"):
        assert train[key] == evaluate[key]
    assert all(train[key] == inference[key] for key in {"style", "prompts", "class_texts"} & inference.keys())
    for key in ("network_def", "checkpoint_settings", "preprocessing"):
        assert train[key] == evaluate[key]
        assert inference[key] == {name: train[key][name] for name in inference[key]}
    for key in ("bundle_root", "dataset_dir", "datalist", "classes"):
        assert train[key] == evaluate[key]
    assert evaluate["network"] == inference["network"]
    assert train["network"] == {**evaluate["network"]["network"], "compiler": "@compiler"}


def test_the_shared_part_holds_no_setting_and_replaces_none(bundle: Shipped) -> None:
    own = read_json(bundle.config("train"))
    for name in SHARED:
        shared = read_json(bundle.folder.parent / f"{name}.json")
        assert own.keys() & shared.keys() <= {"run"}
        shared.pop("process_timeout", None)  # of several processes alone
        shared.pop("fine_tune_epochs", None)  # of a federation alone
        assert all(isinstance(value, (dict, list)) or value in ("@run_dir", "test") for value in shared.values())
    assert bundle_configs(bundle.name) == [Path(file) for file in bundle.files("train")]


@pytest.mark.parametrize("order", [("train",), ("../../training", "train"), ("../../evaluation", "train")])
def test_settings_without_what_is_built_from_them_say_what_to_give(bundle: Shipped, order: tuple[str, ...]) -> None:
    prepared = ConfigWorkflow([str(bundle.config(name)) for name in order], logging_file=False)
    prepared.initialize()
    with pytest.raises(RuntimeError) as caught:
        prepared.run()
    with pytest.raises(ConfigError, match=r"given after it: --config_file .*train\.json','BUNDLE/\.\./training\.json"):
        raise root_cause(caught.value)


def test_the_document_names_every_setting_of_training(bundle: Shipped) -> None:
    documented = (bundle.folder / "docs" / "README.md").read_text(encoding="utf-8")
    config = read_json(bundle.config("train"))
    settings = [key for key in config if key not in ("bundle", "run")]
    assert [key for key in settings if f"`{key}`" not in documented] == []


def test_training_leaves_the_best_and_the_last_epoch(bundle: Shipped, trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == ["best.safetensors", "last.safetensors"]
    assert (trained / "best.safetensors").stat().st_size < (5_000_000 if bundle.gives_masks else 200_000)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", CLASSIFIERS, indirect=True, ids=lambda bundle: bundle.name)
def test_evaluation_scores_the_test_split(bundle: Shipped, trained: Path, datalist: Path, tmp_path: Path) -> None:
    bundle.run("evaluate", dataset_dir=str(datalist.parent), run_dir=str(trained), output_dir=str(tmp_path))
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


@pytest.mark.slow
@pytest.mark.parametrize("bundle", CLASSIFIERS, indirect=True, ids=lambda bundle: bundle.name)
def test_a_folder_of_studies_gets_the_predictions_of_the_evaluation(
    bundle: Shipped, trained: Path, datalist: Path, tmp_path: Path
) -> None:
    studies = copy_studies(datalist, tmp_path / "studies")
    settings = {"checkpoint": str(trained / "best.safetensors")}
    bundle.run("inference", dataset_dir=str(tmp_path / "studies"), output_dir=str(tmp_path / "a"), **settings)
    settings["batch_size"] = 1
    bundle.run("inference", dataset_dir=str(datalist), output_dir=str(tmp_path / "b"), **settings)
    for name in ("a", "b"):
        with (tmp_path / name / "predictions.csv").open() as stream:
            rows = list(csv.reader(stream))
        assert rows[0] == ["study", *bundle.classes, "prediction"]
        assert sorted(row[0] for row in rows[1:]) == sorted(studies)
        assert all(sum(map(float, row[1:-1])) == pytest.approx(1, abs=1e-5) for row in rows[1:])
    first, second = (sorted((tmp_path / name / "predictions.csv").read_text().splitlines()) for name in ("a", "b"))
    assert [row.split(",")[-1] for row in first] == [row.split(",")[-1] for row in second]


def misfits(bundle: Shipped) -> Iterator[tuple[dict, str]]:
    """Settings of an inference that are not those of the training, and what is said about it."""
    yield {"checkpoint": "nowhere/best.safetensors"}, "there is no checkpoint"
    yield {"method": bundle.other}, f"with method '{bundle.method}'"
    yield {"method_args": {"rank": 4}}, "with method_args {}"
    yield {"classes": [*reversed(bundle.classes)]}, f"with classes \\['{bundle.classes[0]}',"
    yield {"backbone": random_clip(1)} if bundle.reads_text else {"seed": 1}, "another backbone"
    if bundle.reads_text:
        yield {"prompts": ["this is {class}"]}, "with prompts \\['a photo of {class}'\\]"


@pytest.mark.slow
def test_predictions_never_come_from_weights_that_do_not_fit(
    bundle: Shipped, trained: Path, datalist: Path, tmp_path: Path
) -> None:
    for change, message in misfits(bundle):
        settings = {"dataset_dir": str(datalist), "checkpoint": str(trained / "best.safetensors"), **change}
        with pytest.raises(RuntimeError) as caught:
            bundle.run("inference", output_dir=str(tmp_path), **settings)
        with pytest.raises(WeightsError, match=message):
            raise root_cause(caught.value)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_federation_takes_its_objects_from_the_config_and_nothing_is_written(
    bundle: Shipped, datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = ConfigParser()
    config.read_config(bundle.files("train"))
    overrides = {
        "dataset_dir": str(datalist.parent),
        "epochs": 4,
        "batch_size": 4,
        "save_checkpoints": False,
        "trackers": [],
        "val_interval": 0,
        "show_progress": False,
        **bundle.weights,
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
        assert evaluator.state.metric_details["n"] == len(load_datalist(datalist).cases(split))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_documented_commands_work_from_any_folder_without_expressions(
    bundle: Shipped, datalist: Path, tmp_path: Path
) -> None:
    for name in KINDS:
        extra = ["--epochs", "1"] if name == "train" else []
        done = bundle.command(name, "--dataset_dir", str(datalist), *extra, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    written = sorted(path.name for path in (tmp_path / "runs" / bundle.name / "site-1").iterdir())
    expected = {"best.safetensors", "evaluation.csv", "last.safetensors", "metrics.json"}
    if bundle.gives_masks:
        studies = [case.subject for case in load_datalist(datalist).test]
        masks = {f"{study}_{phase}_mask.nii.gz" for study in studies for phase in ("ed", "es")}
        expected |= {"structures.csv", "hearts.csv", "volumes.csv"} | masks
    else:
        expected.add("predictions.csv")
    assert written == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", CLASSIFIERS, indirect=True, ids=lambda bundle: bundle.name)
def test_two_processes_train_together_and_share_the_cases(bundle: Shipped, datalist: Path, tmp_path: Path) -> None:
    done = bundle.command(
        ["train", "multi_gpu_train"],
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
    arguments = ["--dataset_dir", str(datalist), "--run_dir=together", "--split=validation"]
    alone = bundle.command("evaluate", *arguments, cwd=tmp_path)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    metrics = read_json(tmp_path / "together" / "metrics.json")
    assert f"balanced_accuracy {metrics['balanced_accuracy']:.4g}" in done.stdout
    assert f"auroc {metrics['auroc']:.4g}" in done.stdout


def test_a_copy_of_earlier_settings_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = read_json(bundle_path("image_2d_fedopal_classification") / "configs" / "train.json")
    del earlier["image_mean"], earlier["image_std"]
    write_json(tmp_path / "own" / "configs" / "train.json", earlier)
    monkeypatch.setenv(BUNDLES_VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=r"train\.json does not say image_mean, image_std, .* null for image_mean"):
        bundle_configs("own")
    write_json(tmp_path / "own" / "configs" / "train.json", earlier | {"image_mean": None, "image_std": None})
    assert len(bundle_configs("own")) == 2
