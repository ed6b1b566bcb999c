"""Training runs of the real trainers, for `make integrations`; not collected where no trainer is installed."""
