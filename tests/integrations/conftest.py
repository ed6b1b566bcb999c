"""Warnings of the trainers themselves, also those when they are imported, are no errors here; those of gradclip are.

The models are tiny: with several threads, threads wait for each other, and a run takes 20 times as long.
"""

import os
import warnings
from importlib import import_module
from importlib.util import find_spec

import pytest

os.environ["OMP_NUM_THREADS"] = "1"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for package in ("accelerate", "ignite", "lightning", "skorch", "stable_baselines3", "transformers"):
        if find_spec(package) is not None:
            import_module(package)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integrations" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("default"), append=False)
            item.add_marker(pytest.mark.filterwarnings("error:::gradclip"))
