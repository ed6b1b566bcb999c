"""Builds the kernels in C, if there is a compiler. All else is in pyproject.toml.

They are a plain library, which Python loads with ctypes: its name carries no version of Python, nor does the wheel's.
"""

import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class BuildKernels(build_ext):
    """Builds a library without Python's name and without its entry point."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the path of the library for the name of an extension module."""
        return fullname.replace(".", "/") + (".dll" if sys.platform == "win32" else ".so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Return no PyInit function: there is none."""
        return ext.export_symbols


class AnyPython(bdist_wheel):
    """Builds a wheel for one platform and every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag of the wheel."""
        return "py3", "none", super().get_tag()[2]


KERNELS = Extension(
    "gradclip._native.kernels",
    ["gradclip/_native/kernels.c"],
    depends=["gradclip/_native/loops.h"],
    extra_compile_args=[
        "-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-pthread", "-Wno-psabi",
    ],
    extra_link_args=["-pthread"],
    libraries=["m"],
    optional=True,  # without a compiler, the installation goes on and says so
)  # fmt: skip

setup(ext_modules=[KERNELS], cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPython})
