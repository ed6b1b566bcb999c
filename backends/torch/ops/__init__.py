"""The operations of ``gradclip._ops.Ops`` for PyTorch: one module for each kind of place where tensors lie."""
