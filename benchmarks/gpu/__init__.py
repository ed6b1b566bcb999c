"""Benchmarks and checks on a GPU: ``python -m benchmarks.gpu``. Needs NumPy, gradclip, and PyTorch or CuPy or both."""
