"""The parts of ``benchmarks/frameworks.py``: each system runs in processes of its own and notes when it trained."""
