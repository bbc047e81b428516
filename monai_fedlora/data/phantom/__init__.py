"""Made-up beating hearts in short-axis cine pictures, from four made-up scanners.

``pathology`` draws a heart's numbers, ``anatomy`` turns them into surfaces, ``body`` and ``render`` into tissue
signal, ``acquisition`` into what a scanner stores, ``geometry`` says how the patient lies; ``patient`` does all of it
and ``layouts`` writes files.
"""

VERSION = 5
"""Raised with every change of what the generator draws, so that cached phantoms are made again."""
