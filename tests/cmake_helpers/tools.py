"""Runs CMake on small projects, and lays out fake installations for them to find."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

HELPERS = Path(__file__).parents[2] / "cmake_helpers"
STAND_IN = Path(__file__).parent / "stand_in"

needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

_FOREIGN = ("TensorRT_ROOT", "CMAKE_PREFIX_PATH", "CUDACXX", "CUDA_PATH", "CUDAToolkit_ROOT")


@dataclass(frozen=True)
class Run:
    """What a command said; ``text`` has line breaks and runs of spaces made one space."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return " ".join((self.stdout + self.stderr).split())


def run(command: list[str | Path], cwd: Path | None = None, **environment: str) -> Run:
    """Run a command whose output is text, with nothing in the environment that finds packages."""
    clean = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def configure(
    folder: Path, lines: str, *definitions: str, languages: str = "NONE", **env: str
) -> Run:
    """Configure a project of these lines; a second call configures the same build folder again."""
    folder.mkdir(exist_ok=True)
    text = "cmake_minimum_required(VERSION 3.22)\n"
    text += f"project(probe LANGUAGES {languages})\n"
    text += f'list(APPEND CMAKE_MODULE_PATH "{HELPERS}")\n{lines}\n'
    (folder / "CMakeLists.txt").write_text(text, encoding="utf-8")
    return run(["cmake", "-S", folder, "-B", folder / "build", *definitions], None, **env)


def write(path: Path, text: str = "") -> Path:
    """Write a file and the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def script(path: Path, body: str) -> Path:
    """Write a program for the shell."""
    write(path, f"#!/bin/sh\n{body}\n").chmod(0o755)
    return path


def fake_nvcc(path: Path, *architectures: int) -> Path:
    """An nvcc that lists these architectures."""
    listed = "".join(f"compute_{number}\\n" for number in architectures)
    return script(path, f'[ "$1" = --list-gpu-arch ] && printf "{listed}"')
