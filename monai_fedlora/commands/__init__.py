"""Sub-commands of ``monai-fedlora``, one module each."""
