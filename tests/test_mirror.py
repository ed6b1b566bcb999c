"""Every module has a test file where its name says, or stands here with the files that test it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "gradclip/__main__.py": "tests/cli/test_app.py",
    "gradclip/_by_policy.py": "tests/test_clipper.py tests/backends/torch/test_policies.py",
    "gradclip/_cli/figures/labels.py": "tests/cli/test_plot.py",
    "gradclip/_cli/figures/norms.py": "tests/cli/test_plot.py",
    "gradclip/_cli/figures/parameters.py": "tests/cli/test_plot.py",
    "gradclip/_cli/figures/series.py": "tests/cli/test_plot.py",
    "gradclip/_cli/figures/style.py": "tests/cli/test_plot.py",
    "gradclip/_cli/figures/thresholds.py": "tests/cli/test_plot.py",
    "gradclip/_cli/marks.py": "tests/cli/test_plot.py",
    "gradclip/_cli/replay.py": "tests/cli/test_compare.py",
    "gradclip/_cli/tables.py": "tests/cli/test_compare.py tests/cli/test_suggest.py",
    "gradclip/_dlpack_finder.py": "tests/test_tensor_memory.py",
    "gradclip/_host_rows.py": "tests/test_adaptive.py",
    "gradclip/_limits.py": "tests/test_pieces.py tests/test_chunks.py",
    "gradclip/_mlx_ops.py": "tests/test_mlx.py",
    "gradclip/_ops.py": "tests/test_array_ops.py tests/test_dask_graphs.py",  # a Protocol, and calls of functions
    "gradclip/_version.py": "tests/test_packaging.py",
    "gradclip/monitor/_collected.py": "tests/monitor/test_monitor.py",
    "gradclip/monitor/_files/_error.py": "tests/monitor/files/test_read.py",
    "gradclip/monitor/_files/_formats.py": "tests/monitor/files/test_read.py",
    "gradclip/monitor/_files/_notes.py": "tests/monitor/files/test_json_lines.py",
    "gradclip/monitor/_files/_numbers.py": "tests/monitor/files/test_json_lines.py",
    "gradclip/monitor/_observer.py": "tests/monitor/test_monitor.py",
    "gradclip/monitor/_reasons.py": "tests/monitor/test_suggest.py",
    "gradclip/monitor/_row.py": "tests/monitor/test_monitor.py",
    "gradclip/monitor/_sources.py": "tests/monitor/test_monitor.py",
    "gradclip/monitor/_totals.py": "tests/monitor/test_window.py",
    "gradclip/policies/_arguments.py": "tests/policies/test_policy.py",
    "gradclip/policies/_as_policy.py": "tests/policies/test_policy.py tests/test_clipper.py",
    "gradclip/policies/_numbers.py": "tests/policies/test_policy.py",
    "backends/cupy/_functions.py": "tests/test_functions.py tests/backends/cupy/test_tree.py",
    "backends/cupy/_limits.py": "tests/backends/cupy/test_table.py",
    "backends/cupy/_ops.py": "tests/backends/cupy/test_norms.py tests/backends/cupy/test_clips.py",
    "backends/jax/_adaptive.py": "tests/backends/jax/test_clips.py",
    "backends/jax/_by_norm.py": "tests/backends/jax/test_clips.py",
    "backends/jax/_by_value.py": "tests/backends/jax/test_clips.py",
    "backends/jax/_eager.py": "tests/backends/jax/test_program.py tests/backends/jax/test_donation.py",
    "backends/jax/_global.py": "tests/backends/jax/test_clips.py",
    "backends/jax/_limits.py": "tests/backends/jax/test_sums.py tests/backends/jax/test_program.py",
    "backends/jax/_ops.py": "tests/backends/jax/test_norms.py tests/backends/jax/test_derivatives.py",
    "backends/jax/_per_example.py": "tests/backends/jax/test_clips.py",
    "backends/jax/_tree.py": "tests/backends/jax/test_clips.py tests/backends/jax/test_float0.py",
    "backends/keras/_clipped.py": "tests/integrations/test_keras.py",
    "backends/keras/_config.py": "tests/integrations/test_keras.py",
    "backends/keras/_log.py": "tests/integrations/test_keras.py",
    "backends/keras/_optimizer.py": "tests/integrations/test_keras.py",
    "backends/optax/_compute.py": "tests/backends/optax/test_state.py",
    "backends/optax/_per_example.py": "tests/backends/optax/test_transforms.py",
    "backends/torch/_compiled_ranks.py": "tests/backends/torch/ops/on_ranks_compiled.py",
    "backends/accelerate.py": "tests/integrations/test_accelerate.py",
    "backends/ignite.py": "tests/integrations/test_ignite.py",
    "backends/lightning.py": "tests/integrations/test_lightning.py",
    "backends/sb3.py": "tests/integrations/test_sb3.py",
    "backends/skorch.py": "tests/integrations/test_skorch.py",
    "backends/transformers.py": "tests/integrations/test_transformers.py",
    "backends/torch/_containers.py": "tests/backends/torch/test_functions.py",
    "backends/torch/_round.py": "tests/backends/torch/test_policies.py",
    "backends/torch/_sharing.py": "tests/backends/torch/ops/on_ranks_of_a_group.py",
    "backends/torch/_step_clipper.py": "tests/backends/torch/test_policies.py tests/backends/torch/test_groups.py",
    "backends/torch/ops/_exchange.py": "tests/backends/torch/ops/on_ranks_of_a_group.py",
    "backends/torch/ops/_host.py": "tests/test_host_ops.py tests/backends/torch/ops/test_device.py",
    "backends/torch/ops/_limits.py": "tests/backends/torch/ops/test_triton_table.py",
    "backends/torch/ops/_ownership.py": "tests/backends/torch/ops/on_ranks_laws.py",
    "backends/torch/ops/_pending.py": "tests/backends/torch/ops/on_ranks_of_a_group.py",
    "backends/torch/ops/_rank_ops.py": "tests/backends/torch/ops/on_ranks_laws.py",
    "backends/torch/ops/_ranks.py": "tests/backends/torch/ops/on_ranks_of_a_group.py",
    "backends/torch/ops/_scope.py": "tests/backends/torch/ops/on_ranks.py",
    "backends/torch/ops/_triton_kernels.py": "tests/backends/torch/ops/interpreted.py",  # by test_triton.py
}
"""Modules whose tests are together with those of others: one test walks through several of them."""

LINKS_AND_NAMES = ("gradclip/backends", "gradclip/conformance", "gradclip/_elsewhere")
"""Links to folders that are read by their own names, and modules that only raise (see test_elsewhere.py)."""

FILES = [
    path.relative_to(ROOT).as_posix() for folder in ("gradclip", "backends") for path in (ROOT / folder).rglob("*.py")
]
MODULES = sorted(x for x in FILES if not x.endswith("__init__.py") and not x.startswith(LINKS_AND_NAMES))


def file_of(module: str) -> Path:
    """Return where the tests of a module belong: for backends/optax/_state.py, tests/backends/optax/test_state.py."""
    path = Path(module.removeprefix("gradclip/"))
    folder = Path("tests", *(part.removeprefix("_") for part in path.parent.parts))
    return ROOT / folder / f"test_{path.stem.removeprefix('_')}.py"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_tests_where_its_name_says(module):
    if module in ELSEWHERE:
        assert not file_of(module).exists(), "it has a file of its own: remove it from ELSEWHERE"
        missing = [name for name in ELSEWHERE[module].split() if not (ROOT / name).exists()]
        assert not missing
    else:
        assert file_of(module).exists()


def test_every_module_elsewhere_exists():
    assert set(ELSEWHERE) <= set(MODULES)
