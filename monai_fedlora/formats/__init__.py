"""Readers of single files (NIfTI, DICOM, photographs, csv); they import no other part of the package but errors."""
