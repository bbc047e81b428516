"""The structures of hearts and of skin by name."""

LV, MYO, RV = "LV", "MYO", "RV"
"""Names of the structures of the heart: blood pool of the left ventricle, its muscle, blood pool of the right one."""

HEART = (LV, MYO, RV)
"""Structures of the heart in the order of their values in a mask: 1, 2, 3."""

LESION = "lesion"
"""Name of the structure of a dermatoscopic photograph: the skin lesion."""

ISIC_VALUE = 255
"""Value of the lesion in the masks of the ISIC archive, on 0."""

PHASES = ("ED", "ES")
"""Names of the frames of a pair: end-diastole, end-systole."""
