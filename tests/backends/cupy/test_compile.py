"""The CUDA source as a GPU's compiler sees it."""

import shutil
import subprocess

import pytest

from tests.backends.cupy.emulated import KERNELS

NVCC = shutil.which("nvcc")
NAMES = ("partials_inf", "partials_one", "partials_two", "partials_any", "merge", "finish", "scale", "clamp")


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize(("dtype", "pairs", "arch"), [(17, 1, "sm_80"), (64, 0, "sm_90")])
def test_nvcc(tmp_path, dtype, pairs, arch):
    macros = [f"-DGRADCLIP_DTYPE={dtype}", f"-DGRADCLIP_PAIRS={pairs}"]
    target = tmp_path / "kernels.ptx"
    flags = ["-std=c++17", "-Werror", "all-warnings", "-ptx", f"-arch={arch}"]
    command = [NVCC, *flags, *macros, str(KERNELS / "kernels.cu"), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = target.read_text()
    for name in NAMES:
        assert f".entry {name}(" in made
    assert "ld.global.v4" in made or "ld.global.v2.u64" in made or "ld.global.v2.f64" in made, "narrow accesses"
    assert "atom" not in made, "atomics would make the sum depend on timing"


@pytest.mark.parametrize(("dtype", "pairs"), [(16, 0), (17, 1), (32, 0), (32, 1), (64, 0)])
def test_nvrtc(dtype, pairs):
    """As CuPy compiles it: without a single header."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="CuPy is not installed", exc_type=ImportError)
    options = ["-std=c++17", f"-DGRADCLIP_DTYPE={dtype}", f"-DGRADCLIP_PAIRS={pairs}", "--gpu-architecture=compute_90"]
    try:
        program = nvrtc.createProgram((KERNELS / "kernels.cu").read_text(), "kernels.cu", [], [])
    except RuntimeError as e:
        pytest.skip(f"NVRTC is not installed: {e}")
    try:
        nvrtc.compileProgram(program, options)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    made = nvrtc.getPTX(program)
    for name in NAMES:
        assert f".entry {name}(" in str(made)
