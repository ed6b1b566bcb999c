"""The CUDA source as a GPU's compiler sees it."""

import re
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
    for kernel in made.split(".entry ")[1:]:  # through addresses out of the table, whose space the compiler cannot know
        if kernel.startswith(("partials", "scale", "clamp")):
            assert re.search(r"\bld\.(global\.)?(v4\.[uf]32|v2\.[uf]64)", kernel), "narrow accesses"
    assert "atom" not in made, "atomics would make the sum depend on timing"


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("dtype", [16, 17, 32])
def test_subnormal_numbers_stay(tmp_path, dtype):
    """With the option that CuPy adds, which flushes float32: what it does to NaN and inside of pow() is no matter."""
    target = tmp_path / "kernels.ptx"
    command = [NVCC, "-std=c++17", "-ftz=true", "-ptx", "-arch=sm_90", f"-DGRADCLIP_DTYPE={dtype}"]
    subprocess.run([*command, "-DGRADCLIP_PAIRS=0", str(KERNELS / "kernels.cu"), "-o", str(target)], check=True)
    flushing = set(re.findall(r"\b(?:add|sub|mul|fma|div|cvt|min|max)\.\S*ftz\S*", target.read_text()))
    assert not flushing


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
