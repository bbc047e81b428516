"""The inference configuration of an exported bundle: plain MONAI, nothing of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_fedlora.transforms.cine import spacing_arguments

PREDICTIONS_NAME = "predictions.csv"


def inference_config(classes: Sequence[str], spacing: Sequence[float]) -> dict[str, Any]:
    """Return the content of ``configs/inference.json``.

    It classifies every ``<study>_ed.nii.gz`` with its ``<study>_es.nii.gz`` in ``dataset_dir`` and writes one table,
    at the end. Studies are the names of both kinds of file, so that a missing partner is looked for and named by
    the reader; an empty folder is one study called ``*``, which fails in the same way. The two files are read as one
    image, for which MONAI's reader demands equal affines and sizes. An earlier table is removed first.

    Args:
        classes: class names in label order.
        spacing: voxel size (x, y, z) in mm of what the model takes.
    """
    return {
        "imports": ["$import pathlib"],
        "bundle_root": ".",
        "dataset_dir": "studies",
        "output_dir": "predictions",
        "csv_header": ",".join(["study", *classes]),
        "folder": "$pathlib.Path(@dataset_dir)",
        "endings": ["_ed.nii.gz", "_es.nii.gz"],
        "studies": "$sorted({path.name[:-10] for path in @folder.glob('*_e[ds].nii.gz')}) or ['*']",
        "datalist": "$[{'study': s, 'image': [str(@folder / (s + end)) for end in @endings]} for s in @studies]",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "DataStatsd",
                    "keys": "study",
                    "prefix": "study",
                    "data_type": False,
                    "data_shape": False,
                    "value_range": False,
                    "data_value": True,
                },
                {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Spacingd", "keys": "image", **spacing_arguments(spacing)},
                {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
        "table": {"_target_": "monai.data.CSVSaver", "output_dir": "@output_dir", "filename": PREDICTIONS_NAME},
        "handlers": [
            {"_target_": "StatsHandler", "iteration_log": False},
            {
                "_target_": "ClassificationSaver",
                "saver": "@table",
                "batch_transform": "$lambda batch: [{'filename_or_obj': item['study']} for item in batch]",
                "output_transform": "$monai.handlers.from_engine(['pred'])",
            },
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@table.save(np.empty(0), {'filename_or_obj': @csv_header})", "$@evaluator.run()"],
    }
