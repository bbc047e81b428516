"""Readers of one file each: what its bytes hold, or why they cannot be read. They know no other room."""
