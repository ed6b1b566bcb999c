"""Sharded gradients: eight virtual devices have to be asked for before JAX starts, so in a process of its own."""

import sys

import pytest

from tests.processes import run_one


@pytest.mark.parametrize("adapter", ["jax", "optax"])
def test_on_eight_virtual_devices(adapter):
    script = f"tests/backends/{adapter}/on_eight_devices.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", script]
    run_one(command, 1800, XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
