"""Build of the kernels in C, if there is a compiler. All other settings are in pyproject.toml.

The kernels are a plain library that ctypes loads. So its file name and the wheel's name have no version of Python.
"""

import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class BuildKernels(build_ext):
    """Builds a library whose name has no version of Python and that exports no PyInit function."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the path of the library for the name of an extension module."""
        return fullname.replace(".", "/") + (".dll" if sys.platform == "win32" else ".so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Return the symbols to export, without a PyInit function."""
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
        "-g0",  # Python's own flags may ask for debugging information, ten times the size of the code
    ],
    extra_link_args=["-pthread"],
    libraries=["m"],
    optional=True,  # without a compiler, setuptools warns and the installation goes on
)  # fmt: skip

setup(ext_modules=[KERNELS], cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPython})
