"""Inference configurations of earlier versions, so that bundles with them still pass the check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_fedlora.exporting.modality import Reading

PHOTOGRAPH_ENDINGS = (".jpeg", ".jpg", ".png", ".tif", ".tiff")
"""Endings of the photographs that configurations of 2026-11 read."""
SEVEN_NUMBERS = (
    "lv_edv_ml", "lv_esv_ml", "lv_ef_percent", "lv_mass_g", "rv_edv_ml", "rv_esv_ml", "rv_ef_percent",
    "no_volume_because",
)  # fmt: skip
"""Columns of masks of cines before stroke volumes were among them, and ``measure`` of such a model gives these."""


def config_of_one_run(classes: Sequence[str], reading: Reading) -> dict[str, Any]:
    """The configuration of 2026-11: all studies are classified in one run, which the first error ends.

    Args:
        classes: class names in label order.
        reading: how studies are found and read.
    """
    return {
        "imports": list(reading.imports),
        "bundle_root": ".",
        "dataset_dir": "studies",
        "output_dir": "predictions",
        "csv_header": ",".join(["study", *classes]),
        **reading.entries,
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
                *reading.transforms,
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
        "table": {"_target_": "monai.data.CSVSaver", "output_dir": "@output_dir", "filename": "predictions.csv"},
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
