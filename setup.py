"""Build hooks: the injected runtime is compiled by `make -C runtime_stub` whenever the package is built.

In: a checkout or an unpacked sdist, gcc and make. Out: flicker_aot/stub/ filled, and a wheel tagged for x86-64 Linux
that needs no compiler where it is installed. Everything else is in pyproject.toml.
"""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py


class BuildWithRuntime(build_py):
    """Compiles the runtime before setuptools collects package data, so that `stub/*` matches what was just built."""

    def run(self):
        subprocess.run(["make", "-C", str(Path(__file__).parent / "runtime_stub")], check=True)
        super().run()


class PlatformWheel(bdist_wheel):
    """`py3-none-linux_x86_64`: no Python extension inside, but machine code for one platform."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        return "py3", "none", "linux_x86_64"


setup(cmdclass={"build_py": BuildWithRuntime, "bdist_wheel": PlatformWheel})
