"""Loads the plugin, whichever way the suite is started."""

from pathlib import Path

pytest_plugins = ("gradclip.conformance.plugin",)

# With --doctest-modules, pytest would import what is no test too, and under a second name.
collect_ignore = [path.name for path in Path(__file__).parent.iterdir() if not path.name.startswith("test_")]
