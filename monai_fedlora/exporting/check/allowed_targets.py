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
    "evaluator": ("CaseEvaluator",),
    "features": ("frozen_inferer",),
    "handlers": ("EarlyStopping", "EpochLog", "Progress", "Validation"),
    "mask_files": ("MaskWriter",),
    "method": ("MethodHandler",),
    "optimizer": ("adamw",),
    "predictions": ("MetricsWriter", "PredictionWriter"),
    "schedule": ("WarmupCosine",),
    "seeds": ("seed_everything",),
    "studies": ("find_studies",),
    "trackers": ("Trackers",),
    "trainer": ("CaseTrainer",),
}

_TASKS = (
    *("along", "gives_masks", "loss", "metrics", "on_files", "outputs", "postprocessing", "predictions", "prepare"),
    "task_of",
)

TRAINING_TARGETS = frozenset(
    {
        "monai.inferers.SimpleInferer",
        "monai.transforms.Activationsd",
        "monai.transforms.Compose",
        "monai_fedlora.data.site.site_data",
        "monai_fedlora.methods.build.build_network",
        "monai_fedlora.resources.bundle_path",
        *(f"monai_fedlora.engines.{module}.{name}" for module, names in _ENGINES.items() for name in names),
        *(f"monai_fedlora.tasks.bundled.{name}" for name in _TASKS),
    }
)
"""The targets of the training bundles of this package."""

EARLIER_TARGETS = frozenset(
    {
        "monai_fedlora.engines.epoch_metrics.ClassificationMetrics",
        "monai_fedlora.engines.evaluator.ClassificationEvaluator",
        "monai_fedlora.engines.loss.cross_entropy",
        "monai_fedlora.engines.trainer.ClassificationTrainer",
    }
)
"""Further ones of the training bundles of earlier versions."""
