"""The targets that a training configuration may call, by full name: a prefix would also permit ``torch.os``."""

from __future__ import annotations

_ENGINES = {
    "checkpoint": ("CheckpointSaver", "with_checkpoint"),
    "config": (
        *("augmentation", "cases", "class_names", "class_prompts", "count", "file_in", "on_device", "open_datalist"),
        *("needs_shared_part", "pick_device", "preprocessing", "run_engine", "run_folder", "site_store", "text_store"),
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
"""The targets of the training bundles of this package."""
