"""The package's public functions, one small module each; `monai_fedlora` offers them by name."""
