"""Frozen foundation models, one file per family, behind one protocol."""
