"""Figures (matplotlib), tables and pages (Jinja2) for all reports."""
