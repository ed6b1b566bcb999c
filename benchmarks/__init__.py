"""Speed, memory and accuracy of gradclip, compared with peers and the physical floor: ``python -m benchmarks``."""
