"""The stages of ``benchmarks/gpu.py``, each a module with ``run(place)``."""
