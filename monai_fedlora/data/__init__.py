"""Readers of published dataset layouts, site splits and synthetic phantoms."""
