"""The contract of gradclip as a suite that runs on any array namespace or adapter. See README.md."""
