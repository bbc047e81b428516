"""MONAI dictionary transforms for 3D cine CMR and 2D classification."""
