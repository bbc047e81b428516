"""One run as a page: its record and, where they are at hand, the sites' own models."""
