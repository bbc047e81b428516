"""Measures of masks: agreement with a reference, volumes and function of the heart, contours."""
