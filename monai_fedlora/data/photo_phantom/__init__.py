"""Made-up photographs of skin lesions and of retinas, from six made-up cameras of each kind.

``tissue`` turns amounts of pigment, blood and what covers them into colours, ``optics`` those into a stored picture.
For skin, ``outline`` and ``view`` lay out a lesion, ``melanocytic``, ``keratinocytic`` and ``dermal`` draw its signs
(``lesions`` lists them), ``skin`` its surroundings, ``dermatoscopes`` says who looks and ``dermoscopy`` does all of
it. For the eye, ``retinopathy`` says what a grade has, ``vessels`` and ``retina`` draw it, ``fundus_cameras`` says who
looks and ``fundus`` does all of it. ``kinds`` and ``cohort`` make whole sites, ``layouts`` published datasets.
"""

VERSION = 2
"""Raised with every change of what the generator draws, so that cached phantoms are made again."""
