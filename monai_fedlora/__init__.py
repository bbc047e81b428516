"""Personalised, parameter-efficient federated fine-tuning of vision foundation models on MONAI bundles."""

__version__ = "0.1.0"
