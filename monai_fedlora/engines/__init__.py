"""Ignite trainers, evaluators, handlers and metrics."""
