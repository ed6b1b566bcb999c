"""Speed, memory and accuracy of gradclip beside its peers and the physical floor: ``python -m benchmarks``."""
