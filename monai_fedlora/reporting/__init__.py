"""The report of one run: made of its record and, where available, of the sites' personal models."""
