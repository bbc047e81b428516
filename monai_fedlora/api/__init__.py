"""The package's public functions, one small module each; :mod:`monai_fedlora` offers them by name."""
