"""Small NIfTI files and photographs for the readers of data sets."""

from tests.formats.conftest import nifti, photograph

__all__ = ["nifti", "photograph"]
