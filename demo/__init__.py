"""The demo: trains a recurrent network with and without clipping. In the root of the repository: ``python -m demo``."""
