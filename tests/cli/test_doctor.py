"""What the doctor finds, and what it says about what is missing or broken."""

import sys
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from gradclip import __version__
from gradclip._cli import doctor
from gradclip.backends import ADAPTERS
from gradclip.backends import torch as adapter
from gradclip.backends.cupy import _runtime


def said(**terminal):
    """Return the output, narrow, as in a pipe unless told otherwise."""
    console = Console(file=StringIO(), width=40, _environ={"TERM": "xterm"}, **terminal)
    doctor.show_findings(console)
    return console.file.getvalue()


@pytest.fixture(autouse=True)
def one_finding_each(monkeypatch):
    """Keep the devices of this machine out of the tests."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor, "CHECKS", {"numpy": None})


def test_every_finding_has_one_plain_line():
    lines = said().splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert names == [name for findings in doctor.sections().values() for name in findings]
    assert [line for line in lines if not line.startswith("  ")] == ["Versions", "Adapters", "Devices", "Self-check"]
    assert f"  {'gradclip':<24} {__version__}" in lines
    assert f"  {'numpy':<24} {np.__version__}" in lines
    assert f"  {'torch':<24} CPU; no GPU found" in lines


def test_versions_of_packages_under_other_names(monkeypatch):
    monkeypatch.setattr(doctor, "_distributions", lambda: {"cupy": ["cupy-cuda13x", "cupy-cuda13x"]})
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "14.2.0")
    assert doctor._version("cupy") == "14.2.0 (cupy-cuda13x)"
    assert doctor._version("jax") == "not installed"


def test_an_adapter_that_cannot_be_imported_says_why(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("gradclip.backends.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # which makes its import fail
    text = said()
    assert "gradclip.backends.torch  gradclip.backends.torch needs torch, which is not installed; pip install" in text
    assert {f"gradclip.backends.{name}" for name in ADAPTERS} <= set(text.split())


def test_gpus_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", "GPU {}".format)
    monkeypatch.setattr(adapter, "gpu_kernels", {"cuda:0": "PyTorch's own operations", "cuda:1": "Triton"}.get)
    gpus = SimpleNamespace(getDeviceCount=lambda: 1, getDeviceProperties=lambda i: {"name": b"GPU 0"})
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=gpus))
    monkeypatch.setattr(_runtime, "runtime", lambda: SimpleNamespace(cupy=cupy, refusal=lambda device: None))
    text = said()
    assert "GPU 0, with PyTorch's own operations; GPU 1, with Triton\n" in text
    assert "GPU 0, with CUDA\n" in text


def test_a_framework_that_fails_is_red_on_a_terminal_and_the_rest_goes_on(monkeypatch):
    def fails():
        raise RuntimeError("the driver\nis too old")

    monkeypatch.setattr(torch.cuda, "device_count", fails)
    assert "RuntimeError: the driver is too old\n" in said()
    assert "\x1b[31mRuntimeError: the driver is too old" in said(force_terminal=True)


def test_what_is_not_installed_is_no_failure():
    def absent():
        raise ModuleNotFoundError("needs x, which is not installed")

    def broken():
        raise ImportError("libx.so: cannot open shared object file")

    assert doctor.look(absent).state == "absent"
    assert doctor.look(lambda: "not installed").state == "absent"
    assert doctor.look(broken).state == "failed"
    assert doctor.look(lambda: "1.0") == doctor.Found("1.0", "ok")
