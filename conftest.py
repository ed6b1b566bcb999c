"""What pytest must not collect for its doctests: files that cannot be imported everywhere."""

from importlib.util import find_spec

collect_ignore = [
    "gradclip/conformance",  # a link to conformance/, which would be run twice
    "tests/backends/cupy/on_cpu.py",  # puts the CPU in the place of a GPU for the whole process
    "tests/backends/jax/on_eight_devices.py",  # runs in a process of its own, with eight devices
]

if find_spec("triton") is None:  # it comes with PyTorch's GPU builds
    collect_ignore += [f"gradclip/backends/torch/ops/{name}.py" for name in ("_launch", "_triton", "_triton_kernels")]
