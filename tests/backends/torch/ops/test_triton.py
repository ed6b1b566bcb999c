"""The Triton kernels without a GPU: run in its interpreter, and compiled for GPUs of two makers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed (it comes with PyTorch's builds for GPUs)")

ROOT = Path(__file__).parents[4]
# Warnings of Triton itself. The interpreter of Triton 3.6 makes numbers of arrays in a way that NumPy has deprecated.
IGNORED = [
    "-W", "ignore::UserWarning:triton",
    "-W", "ignore:Conversion of an array with ndim:DeprecationWarning:triton.runtime.interpreter",
]  # fmt: skip


def test_their_arithmetic_in_the_interpreter():
    script = Path(__file__).with_name("interpreted.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", script, "-q", "-p", "no:cacheprovider", *IGNORED],
        cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


COMPILE = """
import sys, warnings
warnings.simplefilter("ignore")
import triton.language as tl
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gradclip.backends.torch.ops import _triton_kernels as t

def compiled(kernel, signature, target, **constants):
    names = list(kernel.arg_names)
    types = {n: "constexpr" if n in constants else signature[n] for n in names}
    source = ASTSource(kernel, types, {(names.index(n),): value for n, value in constants.items()})
    return triton.compile(source, target=target, options={"num_warps": 8})

numbers = {"divisors": "*fp64", "factors": "*fp64", "changed": "*i1", "zeroed": "*i1", "each": "i32"}
for target in (GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)):
    for kind in (tl.bfloat16, tl.float64):
        common = {"TYPE": kind, "ALIGNED": True, "BLOCK": 4096}
        pairs = kind is tl.bfloat16
        kinds = {"pieces": "*i64", "out": "*fp64", "p_bits": "i64"}
        made = compiled(t.partials_kernel, kinds, target, ORDER=2, PAIRS=pairs, **common)
        if target.backend == "cuda":
            wide = "ld.global.v4.b32" if pairs else "ld.global.v2.b64"
            assert wide in made.asm["ptx"], "accesses are narrower than 16 bytes"
        compiled(t.scale_kernel, {"pieces": "*i64", **numbers}, target, ZERO=True, **common)
        compiled(t.clamp_kernel, {"pieces": "*i64", "low_bits": "i64", "high_bits": "i64"}, target, **common)
    other = {"TYPE": tl.float32, "ALIGNED": True, "BLOCK": 4096, "PAIRS": False}
    compiled(t.partials_kernel, {"pieces": "*i64", "out": "*fp64", "p_bits": "i64"}, target, ORDER=3, **other)
    bits = dict.fromkeys(("p_bits", "most_bits", "eps_bits", "loss_bits"), "i64")
    kinds = {"parts": "*fp64", "count": "i32", "numbers": "*fp64", "result": "*fp64", "norm": "*fp32", "flags": "*i1"}
    for order in (0, 1, 2, 3):
        compiled(t.finish_kernel, kinds | bits, target, ORDER=order, GIVEN=order == 1, ZERO=order == 2, BLOCK=1024)
    compiled(t.merge_kernel, {"parts": "*fp64", "ranges": "*i64", "out": "*fp64"}, target, ORDER=2, BLOCK=256)
"""


def test_they_compile_for_nvidia_and_amd(tmp_path):
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    env.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
