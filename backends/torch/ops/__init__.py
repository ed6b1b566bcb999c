"""The operations of ``gradclip._ops.Ops`` for PyTorch: on host, any device, Triton, over devices and ranks."""
