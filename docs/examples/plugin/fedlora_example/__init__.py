"""What this package adds to MONAI-FedLoRA; ``pyproject.toml`` says under which names."""
