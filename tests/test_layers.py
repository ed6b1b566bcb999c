"""The arrows between the parts: who may import whom, read from the source and proved in a fresh interpreter."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gradclip
from gradclip import backends

ROOT = Path(__file__).parents[1]
PARTS = ("_native", "policies", "monitor", "monitor/_files")
CORE = sorted(path for part in ("", *PARTS) for path in (ROOT / "gradclip" / part).glob("*.py"))
CLI = sorted((ROOT / "gradclip" / "_cli").rglob("*.py"))
ADAPTERS = sorted((ROOT / "backends").rglob("*.py"))
DEMO = sorted((ROOT / "demo").glob("*.py"))
TRAINERS = {
    "accelerate", "ignite", "keras", "lightning", "pytorch_lightning", "skorch", "stable_baselines3", "transformers",
}  # fmt: skip
FRAMEWORKS = TRAINERS | {"torch", "jax", "jaxlib", "optax", "cupy", "dask", "triton", "flax", "equinox"}
OPTIONAL = {"typer", "rich", "matplotlib", "uniplot"}


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Return the dotted names that a file imports, anywhere in it or at its top level only."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def module(path: Path) -> str:
    """Return the dotted name of the module in a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.stem)
def test_the_core_imports_no_framework_no_adapter_and_not_the_command_line(path):
    names = imports(path)
    assert not roots(names) & (FRAMEWORKS | OPTIONAL)
    assert not any(name.startswith("gradclip.backends") for name in names)
    if path.stem != "__main__":
        assert not any(f"{name}.".startswith("gradclip._cli.") for name in names)
    assert ("array_api_compat" in roots(names)) <= (path.stem == "_namespace"), "only _namespace knows array_api_compat"


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_adapters_import_the_core_and_not_each_other(path):
    own = path.relative_to(ROOT / "backends").parts[0].removesuffix(".py")
    others = {"optax": {"jax"}, "keras": {"jax", "torch"}}.get(own, {"torch"} if own in backends.TRAINERS else set())
    allowed = {own, *others}
    names = {name.split(".")[2] for name in imports(path) if name.startswith("gradclip.backends.")}
    assert names <= allowed
    assert "backends" not in roots(imports(path)), "import gradclip.backends: `backends` is a second copy"


@pytest.mark.parametrize("path", CORE + CLI + ADAPTERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_installed_imports_nothing_that_is_not(path):
    assert not roots(imports(path)) & {"demo", "benchmarks", "conformance", "tests"}


WITHOUT_FRAMEWORK = [p for p in CLI + DEMO if not p.stem.startswith("rnn_")]


@pytest.mark.parametrize("path", WITHOUT_FRAMEWORK, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_command_line_and_the_demo_load_no_framework_when_they_are_imported(path):
    assert not roots(imports(path, top_only=True)) & FRAMEWORKS


def test_there_are_no_cycles_in_the_core():
    edges = {module(p): imports(p, top_only=True) for p in CORE}
    edges["gradclip"] = set()
    done: set[str] = set()
    while left := set(edges) - done:
        ready = {name for name in left if edges[name] & set(edges) <= done}
        assert ready, f"a cycle among {sorted(left)}"
        done |= ready


def test_importing_gradclip_imports_no_framework():
    code = (
        "import sys, numpy, gradclip, gradclip.backends\n"
        "gradclip.clip_by_global_norm({'a': numpy.ones(3)}, 1.0)\n"
        f"loaded = {sorted(FRAMEWORKS | OPTIONAL)!r} & sys.modules.keys()\n".replace("[", "{", 1).replace("]", "}", 1)
        + "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_adapters_are_loaded_when_named_and_only_then():
    assert set(backends.ADAPTERS + backends.TRAINERS) <= set(dir(backends))
    with pytest.raises(AttributeError, match="has no adapter 'tensorflow'; it has "):
        backends.tensorflow  # noqa: B018  # the access is what is tested
    for name in backends.ADAPTERS + backends.TRAINERS:
        assert (ROOT / "backends" / name).is_dir() or (ROOT / "backends" / f"{name}.py").is_file()


def test_the_public_names_are_those_of_the_design():
    assert gradclip.__all__ == sorted(gradclip.__all__)
    public = {
        name for name, value in vars(gradclip).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(gradclip.__all__)


@pytest.mark.parametrize("name", [name for name in gradclip.__all__ if not name.endswith("Error")])
def test_every_public_function_says_what_it_takes_gives_and_raises(name):
    value = getattr(gradclip, name)
    doc = inspect.getdoc(value) or ""
    assert "Parameters\n" in doc
    assert ">>> " in doc or name == "NormPartial"
    if inspect.isfunction(value):
        assert "Raises\n" in doc
        for parameter in inspect.signature(value).parameters:
            assert parameter in doc


def test_signatures():
    def signature(name: str) -> str:
        parameters = inspect.signature(getattr(gradclip, name)).parameters.values()
        return ", ".join(str(p.replace(annotation=inspect.Parameter.empty)) for p in parameters)

    assert signature("global_norm") == signature("leaf_norms") == signature("norm_partial") == "grads, ord=2.0"
    assert signature("clip_by_value") == signature("clip_by_value_") == "grads, max_value, min_value=None"
    assert signature("clip_by_norm") == signature("clip_by_norm_") == "grads, max_norm, ord=2.0"
    whole = "grads, max_norm, ord=2.0, nonfinite='propagate', scale=1.0, eps=0.0"
    assert signature("clip_by_global_norm") == signature("clip_by_global_norm_") == whole
    assert signature("clip_by_rms") == signature("clip_by_rms_") == "grads, max_rms"
    agc = "grads, params, clipping=0.01, eps=0.001, axis=None"
    assert signature("adaptive_grad_clip") == signature("adaptive_grad_clip_") == agc
    assert signature("clip_per_example") == "grads, max_norm"
    assert signature("clip_spikes") == signature("clip_spikes_") == "grads, second_moments, threshold=5000.0"
    assert signature("Clipper") == "policy, ord=2.0, nonfinite='propagate', eps=0.0"
    assert signature("clip_with_norm") == signature("clip_with_norm_") == "grads, max_norm, norm"


def test_every_module_says_what_it_is():
    for path in CORE + CLI + ADAPTERS + DEMO:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_modules_can_be_imported_by_name():
    for path in CORE:
        if path.stem not in {"__init__", "__main__"}:
            importlib.import_module(module(path))
