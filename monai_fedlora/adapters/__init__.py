"""Trainable parts that are attached to a frozen backbone."""
