"""Warnings of the trainers themselves, also those when they are imported, are no errors here; those of gradclip are."""

import warnings
from importlib import import_module

import pytest

from conftest import TRAINERS, missing

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for module, package in TRAINERS.items():
        if module not in missing:
            import_module(package)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integrations" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("default"), append=False)
            item.add_marker(pytest.mark.filterwarnings("error:::gradclip"))
