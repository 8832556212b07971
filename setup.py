"""What pyproject.toml cannot say: a build compiles the BPF programs first, where clang is."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bpf import build, libraries


def compile_bpf() -> None:
    """Compile, and fetch what they are loaded by; say on stderr why not, where nothing was."""
    for problem in (build.build(), libraries.fetch()):
        if problem:
            print(problem, file=sys.stderr)


class BuildPy(build_py):
    """With compiled programs among the package's data."""

    def run(self) -> None:
        """Compile, then build."""
        compile_bpf()
        super().run()


class Sdist(sdist):
    """With compiled programs, for those who build from it and have no clang."""

    def run(self) -> None:
        """Compile, then pack."""
        compile_bpf()
        super().run()


setup(cmdclass={"build_py": BuildPy, "sdist": Sdist})
