"""Phantoms of cine studies: synthetic short-axis stacks of beating hearts, from four synthetic scanners.

``pathology`` draws volumes and function of a heart, ``anatomy`` its surfaces, ``body`` and ``render`` the tissue
signal. ``acquisition`` simulates the scanner, ``geometry`` the orientation; ``patient`` calls all of them and
``layouts`` writes files.
"""

VERSION = 5
"""Raised with every change of the generated images, so that cached phantoms are generated again."""
