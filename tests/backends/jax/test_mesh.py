"""Sharded gradients: eight virtual devices have to be asked for before JAX starts, so in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("adapter", ["jax", "optax"])
def test_on_eight_virtual_devices(adapter):
    flags = "--xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    script = f"tests/backends/{adapter}/on_eight_devices.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
