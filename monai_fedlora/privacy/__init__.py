"""Accounted privacy of what leaves a site: gradients of single patients, clipping, noise, and what these cost."""
