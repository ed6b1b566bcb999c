"""Names of adapters that users look for in ``gradclip``: the error says where they are."""

import importlib
import inspect
import subprocess
import sys

import pytest

import gradclip
from gradclip import _elsewhere, backends

ADAPTERS = sorted(_elsewhere.FUNCTIONS)
NAMES = [(adapter, name) for adapter, names in _elsewhere.FUNCTIONS.items() for name in names]
REPLACED = {"clip_grad_norm": "clip_grad_norm_"}


def run(code):
    exec(compile(code, "<script>", "exec"), {})


@pytest.mark.parametrize(("adapter", "name"), NAMES)
def test_a_name_of_an_adapter_is_found_there(adapter, name):
    pytest.importorskip(adapter)
    there = REPLACED.get(name, name)
    assert hasattr(importlib.import_module(f"gradclip.backends.{adapter}"), there)
    where = rf"from gradclip\.backends\.{adapter} import {there}(?: or from gradclip\.backends\.\w+ import {there})?$"
    with pytest.raises(ImportError, match=rf"cannot import name '{name}' from 'gradclip'; .*{where}"):
        run(f"from gradclip import {name}")
    with pytest.raises(ImportError, match=where):
        run(f"from gradclip import clip_by_value, {name} as mine")
    with pytest.raises(AttributeError, match=rf"module 'gradclip' has no attribute '{name}'; .*{where}"):
        getattr(gradclip, name)
    assert not hasattr(gradclip, name)


def test_every_name_that_the_adapters_have_alone_is_known():
    assert set(backends.ADAPTERS) == set(ADAPTERS)
    for adapter in ADAPTERS:
        if importlib.util.find_spec(adapter) is not None:
            theirs = set(importlib.import_module(f"gradclip.backends.{adapter}").__all__) - set(gradclip.__all__)
            assert theirs == set(_elsewhere.FUNCTIONS[adapter]) - set(REPLACED)


TRAINERS = [(trainer, name) for trainer, names in _elsewhere.TRAINERS.items() for name in names]


@pytest.mark.parametrize(("trainer", "name"), TRAINERS)
def test_a_name_of_a_trainer_is_found_in_its_module(trainer, name):
    with pytest.raises(ImportError, match=rf"from gradclip\.backends\.{trainer} import {name}\b"):
        run(f"from gradclip import {name}")
    assert set(_elsewhere.TRAINERS) == set(backends.TRAINERS)
    if importlib.util.find_spec({"sb3": "stable_baselines3"}.get(trainer, trainer)) is not None:
        there = importlib.import_module(f"gradclip.backends.{trainer}")
        assert tuple(there.__all__) == _elsewhere.TRAINERS[trainer]


@pytest.mark.parametrize(
    ("trainer", "package", "install"),
    [
        ("accelerate", "accelerate", "accelerate"),
        ("ignite", "ignite", "pytorch-ignite"),
        ("keras", "keras", '"gradclip[keras]"'),
        ("lightning", "lightning", "lightning"),
        ("sb3", "stable_baselines3", "stable-baselines3"),
        ("skorch", "skorch", "skorch"),
        ("transformers", "transformers", '"transformers[torch]"'),
    ],
)
def test_a_trainer_that_is_not_installed(trainer, package, install):
    said = fails(package, f"import gradclip.backends.{trainer}")
    assert said.endswith(f"gradclip.backends.{trainer} needs {package}, which is not installed; pip install {install}")


@pytest.mark.parametrize("adapter", [*ADAPTERS, *sorted(_elsewhere.TRAINERS)])
def test_adapters_are_in_backends(adapter):
    where = rf"gradclip\.backends\.{adapter}$"
    for code in (
        f"import gradclip.{adapter}",
        f"from gradclip.{adapter} import clip",
        f"import gradclip.{adapter} as a",
    ):
        with pytest.raises(ModuleNotFoundError, match=where) as error:
            run(code)
        assert error.value.name == f"gradclip.{adapter}"
    with pytest.raises(ImportError, match=where):
        run(f"from gradclip import {adapter}")
    with pytest.raises(AttributeError, match=where):
        getattr(gradclip, adapter)
    assert not hasattr(gradclip, adapter)
    importlib.import_module(f"gradclip._elsewhere.{adapter}")  # as tools do that import every file


def test_backends_is_named_before_it_was_imported():
    code = "import gradclip; gradclip.backends.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "has no attribute 'backends'; adapters are in gradclip.backends, write: import gradclip." in done.stderr


def test_other_names_are_unknown_as_in_any_module():
    with pytest.raises(ImportError, match=r"^cannot import name 'nothing' from 'gradclip'$") as error:
        run("from gradclip import nothing")
    assert error.value.name == "gradclip"
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'gradclip\.nothing'"):
        run("import gradclip.nothing")
    with pytest.raises(AttributeError, match=r"^module 'gradclip' has no attribute 'nothing'$"):
        gradclip.nothing  # noqa: B018  # the access is what is tested
    assert getattr(gradclip, "nothing", 5) == 5


def test_a_slip_gets_a_suggestion():
    assert fails("nothing", "import gradclip; gradclip.clip_by_nrom").endswith("Did you mean: 'clip_by_norm'?")


def test_tools_can_look_at_the_package():
    assert set(gradclip.__all__) <= set(dir(gradclip))
    assert dict(inspect.getmembers(gradclip))["NormPartial"] is gradclip.NormPartial
    scope: dict[str, object] = {}
    exec("from gradclip import *", scope)
    assert set(gradclip.__all__) <= set(scope)


HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
{code}
"""


def fails(missing, code):
    """Run code where a module is not installed, and return the last line that it printed to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE.format(missing=missing, code=code)], capture_output=True, text=True, check=False
    )
    assert done.returncode, "it did not fail"
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    ["import gradclip.backends.torch", "from gradclip.backends import torch", "import gradclip.backends as b; b.torch"],
)
def test_a_framework_that_is_not_installed(code):
    said = fails("torch", code)
    assert said.endswith('gradclip.backends.torch needs torch, which is not installed; pip install "gradclip[torch]"')
    assert said.startswith("ModuleNotFoundError")


@pytest.mark.parametrize("missing", ["optax", "jax"])
def test_optax_needs_both(missing):
    said = fails(missing, "import gradclip.backends.optax")
    assert said.endswith(f'needs {missing}, which is not installed; pip install "gradclip[optax]"')


def test_jax_that_is_not_installed():
    assert fails("jax", "import gradclip.backends.jax").endswith('pip install "gradclip[jax]"')


def test_what_fails_within_a_framework_is_not_hidden():
    assert fails("torch._C", "import gradclip.backends.torch") == "ModuleNotFoundError: No module named 'torch._C'"
