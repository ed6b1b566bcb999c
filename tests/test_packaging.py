"""What is installed: built, unpacked and imported for real."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import gradclip

ROOT = Path(__file__).parents[1]
LINKED = ("backends", "conformance")
"""Top-level folders that are packages of gradclip."""

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_REQUIRE"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git tracks, as a fresh clone has them."""
    target = tmp_path_factory.mktemp("checkout")
    listed = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, listed):
        source, copy = ROOT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.symlink_to(source.readlink())
        elif source.is_file():
            copy.write_bytes(source.read_bytes())
    return target


@pytest.fixture(scope="module")
def built(checkout: Path) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is made from it."""
    run(sys.executable, "-m", "build", "--outdir", "dist", cwd=checkout)
    (sdist,) = (checkout / "dist").glob("*.tar.gz")
    (wheel,) = (checkout / "dist").glob("*.whl")
    return sdist, wheel


def modules(root: Path) -> set[str]:
    core = {f"gradclip/{p.relative_to(root / 'gradclip')}" for p in (root / "gradclip").rglob("*.py")}
    linked = {f"gradclip/{p.relative_to(root)}" for name in LINKED for p in (root / name).rglob("*.py")}
    return core | linked


def test_the_wheel_has_every_module_once_and_no_other_top_level_package(checkout, built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
    assert len(names) == len(set(names))
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"gradclip"}
    assert {name for name in names if name.endswith(".py")} == modules(checkout)
    assert {"gradclip/py.typed", "gradclip/backends/cupy/kernels.cu"} <= set(names)
    suite = {f"gradclip/{p.relative_to(checkout)}" for p in (checkout / "conformance").rglob("*") if p.is_file()}
    assert {name for name in names if name.startswith("gradclip/conformance/")} == suite


def test_the_source_distribution_has_the_license_the_adapters_and_the_suite(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {"LICENSE", "README.md", "pyproject.toml", "backends/__init__.py", "conformance/golden.json"}
    assert wanted <= names
    assert not any(name.startswith("demo") for name in names)


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler")
def test_the_wheel_has_the_kernels_and_is_for_every_python_3(built):
    with tarfile.open(built[0]) as sdist:
        sources = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"setup.py", "gradclip/_native/kernels.c", "gradclip/_native/loops.h"} <= sources
    with zipfile.ZipFile(built[1]) as wheel:
        names = {Path(name).name for name in wheel.namelist() if name.startswith("gradclip/_native/")}
    assert names & {"kernels.so", "kernels.dll"}
    assert not names & {"kernels.c", "loops.h"}
    assert re.search(r"-py3-none-(?!any)\w+\.whl$", built[1].name)


def test_without_a_compiler_it_installs_and_says_so(checkout, tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path)]
    environment = {**os.environ, "CC": "/no/such/compiler"}
    copy = tmp_path / "checkout"
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns("build", "dist", "kernels.so"))
    subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not any(name.endswith((".so", ".dll")) for name in archive.namelist())
        archive.extractall(tmp_path / "there")
    said = run(sys.executable, "-c", _STATUS.format(str(tmp_path / "there")), cwd=tmp_path)
    assert said.startswith("not built: install gradclip where there is a C compiler")


_STATUS = """
import sys
sys.path.insert(0, {!r})
import numpy as np, gradclip
from gradclip import _native
assert gradclip.clip_by_global_norm_([np.array([3.0, 4.0])], 1.0) == 5
print(_native.status())
"""


def test_every_package_is_listed(checkout):
    listed = CONFIG["tool"]["setuptools"]["packages"]
    folders = {Path(name).parent.as_posix().replace("/", ".") for name in modules(checkout)}
    assert set(listed) == folders


@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_installed_it_runs_without_any_framework(how, checkout, built, tmp_path):
    venv.create(tmp_path / "env", with_pip=True, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    what = [built[1]] if how == "wheel" else ["-e", checkout]
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-q", *what, cwd=tmp_path)
    code = (
        "import sys, numpy as np, gradclip, gradclip.backends as b\n"
        "g = np.array([3., 4.]); gradclip.clip_by_global_norm_(g, 1.0)\n"
        "assert abs(g - [.6, .8]).max() < 1e-15\n"
        "assert b.__spec__.name == 'gradclip.backends' and 'backends' not in sys.modules\n"
        "from importlib.metadata import version; assert gradclip.__version__ == version('gradclip')\n"
        "def why(name):\n"
        "    try: __import__(name)\n"
        "    except ModuleNotFoundError as e: return str(e)\n"
        "assert why('gradclip.torch').endswith('import gradclip.backends.torch')\n"
        "assert why('gradclip.backends.torch').endswith('pip install \"gradclip[torch]\"')\n"
        "print(gradclip.__file__)"
    )
    where = run(python, "-c", code, cwd=tmp_path)
    assert where.startswith(str((checkout if how == "editable" else tmp_path / "env").resolve()))
    said = subprocess.run(
        [tmp_path / "env" / "bin" / "gradclip"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert said.returncode != 0
    assert 'pip install "gradclip[cli]"' in said.stdout + said.stderr
    assert "Traceback" not in said.stderr


def test_the_version_of_a_source_checkout(checkout):
    code = f"import sys; sys.path.insert(0, {str(checkout)!r}); import gradclip as g; print(g.__file__, g.__version__)"
    where, version = run(sys.executable, "-c", code, cwd=checkout.parent).split()
    assert where.startswith(str(checkout))
    assert version == gradclip.__version__
    assert CONFIG["project"]["dynamic"] == ["version"]


@pytest.mark.parametrize("name", LINKED)
def test_the_link_that_editable_installs_and_type_checkers_follow(name):
    link = ROOT / "gradclip" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name


@pytest.fixture(scope="module")
def unpacked(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel has, to be found before the clone."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(folder)
    return folder


SUITE = {
    "command": ["gradclip.conformance", "-k", "test_10"],
    "pyargs": ["pytest", "--pyargs", "gradclip.conformance.test_10_by_value", "-p", "gradclip.conformance.plugin"],
}


@pytest.mark.parametrize("how", SUITE)
def test_the_suite_of_the_wheel_runs_on_an_adapter_of_another_folder(how, unpacked, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from gradclip import *\nimport gradclip\nassert 'unpacked' in gradclip.__file__\n"
    )
    options = ["--adapter", "mine", "--namespace", "numpy", "--cases", "1", "-q", "--report", "report.md"]
    command = [sys.executable, "-m", *SUITE[how], *options]
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| 10 | by value")]
    assert re.search(r"\| \d+ ✓ \|$", row)


def test_the_extra_of_the_suite_is_what_it_imports(checkout):
    nodes = [node for p in (checkout / "conformance").glob("*.py") for node in ast.walk(ast.parse(p.read_text()))]
    names = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    installed = {"gradclip", "numpy", "optree"}
    needed = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - installed
    extra = CONFIG["project"]["optional-dependencies"]["conformance"]
    assert {requirement.partition(">=")[0] for requirement in extra} == needed
