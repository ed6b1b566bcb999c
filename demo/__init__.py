"""The demo: clipping saves the training of a recurrent network. In the root of the repository: ``python -m demo``."""
