"""Phantoms of photographs: synthetic images of skin lesions and retinas, from six synthetic cameras of each kind.

``tissue`` turns amounts of pigment, blood and covering material into colours, ``optics`` simulates the camera. For
skin, ``outline`` and ``view`` place a lesion, ``melanocytic``, ``keratinocytic`` and ``dermal`` draw its signs
(``lesions`` lists the diagnoses), ``skin`` draws its surroundings, ``dermatoscopes`` describes the cameras and
``dermoscopy`` calls all of them. For the eye, ``retinopathy`` chooses the findings of a grade, ``vessels`` and
``retina`` draw them, ``fundus_cameras`` describes the cameras and ``fundus`` calls all of them. ``photo_site``
generates the data of a site, ``photo_layouts`` those of published data sets.
"""

VERSION = 2
"""Raised with every change of the generated images, so that cached phantoms are generated again."""
