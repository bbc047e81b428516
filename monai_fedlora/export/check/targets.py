"""What a configuration may call: by name, one by one, because a package's prefix alone also reaches ``torch.os``."""

from __future__ import annotations

from monai_fedlora.export.check.words import words
from monai_fedlora.export.inference import PREDICTIONS_NAME

EXPORTED_TARGETS = {
    "Activationsd": words("keys softmax"),
    "ClassificationSaver": words("batch_transform output_transform saver"),
    "Compose": words("transforms"),
    "DataLoader": words("batch_size dataset num_workers shuffle"),
    "DataStatsd": words("data_shape data_type data_value keys prefix value_range"),
    "Dataset": words("data transform"),
    "EnsureChannelFirstd": words("channel_dim keys"),
    "EnsureTyped": words("keys track_meta"),
    "Lambdad": words("func keys track_meta"),
    "LoadImaged": words("keys reader"),
    "SimpleInferer": words(""),
    "Spacingd": words("align_corners diagonal dtype keys mode padding_mode pixdim scale_extent"),
    "StatsHandler": words("iteration_log"),
    "SupervisedEvaluator": words("device inferer network postprocessing val_data_loader val_handlers"),
    "monai.data.CSVSaver": words("filename output_dir"),
}
"""Of an exported bundle: parts of MONAI alone, under the short names that it resolves itself, with their arguments."""

EXPORTED_WRITERS = {"monai.data.CSVSaver": "table"}
"""What of it writes a file, with the one place where it may stand."""

EXPORTED_PLACES = {
    "bundle_root": ".",
    "dataset_dir": "studies",
    "output_dir": "predictions",
    "table::output_dir": "@output_dir",
    "table::filename": PREDICTIONS_NAME,
}
"""Where an exported bundle reads and writes unless the person who runs it says otherwise."""

_ENGINES = {
    "checkpoint": ("CheckpointSaver", "with_checkpoint"),
    "config": (
        *("augmentation", "cases", "class_names", "class_prompts", "count", "file_in", "on_device", "open_datalist"),
        *("pick_device", "preprocessing", "run_engine", "run_folder", "site_store", "text_store"),
    ),
    "dataset": ("CaseDataset", "case_loader"),
    "distributed": ("data_parallel", "process_device", "start", "stop"),
    "epoch_metrics": ("ClassificationMetrics",),
    "evaluator": ("ClassificationEvaluator",),
    "features": ("frozen_inferer",),
    "handlers": ("EarlyStopping", "EpochLog", "Progress", "Validation"),
    "loss": ("cross_entropy",),
    "method": ("MethodHandler",),
    "optimizer": ("adamw",),
    "predictions": ("MetricsWriter", "PredictionWriter"),
    "schedule": ("WarmupCosine",),
    "seeds": ("seed_everything",),
    "studies": ("find_studies",),
    "trackers": ("Trackers",),
    "trainer": ("ClassificationTrainer",),
}

TRAINING_TARGETS = frozenset(
    {
        "monai.inferers.SimpleInferer",
        "monai.transforms.Activationsd",
        "monai.transforms.Compose",
        "monai_fedlora.data.site.site_data",
        "monai_fedlora.methods.build.build_network",
        "monai_fedlora.resources.bundle_path",
        *(f"monai_fedlora.engines.{module}.{name}" for module, names in _ENGINES.items() for name in names),
    }
)
"""Of a training bundle: what the shipped ones call."""
