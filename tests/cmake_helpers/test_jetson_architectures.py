"""Board name or device tree -> CUDA architecture, as far as a toolkit can compile for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .tools import Run, configure, fake_nvcc, needs_cmake, script

pytestmark = needs_cmake

CUDA_12 = (50, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 120)
CUDA_13 = (75, 80, 86, 87, 88, 89, 90, 100, 110, 103, 120, 121)


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, arguments: str, toolkit: tuple[int, ...] = CUDA_13) -> Run:
        nvcc = fake_nvcc(self.folder / "nvcc", *toolkit)
        return self.call(f'{arguments} NVCC "{nvcc}"')

    def call(self, arguments: str, **env: str) -> Run:
        lines = (
            "include(JetsonArchitectures)\n"
            f'jetson_architectures(found {arguments})\nmessage("found=[${{found}}]")'
        )
        return configure(self.folder / "project", lines, **env)

    def board(self, model: str | None, compatible: str | None = None) -> str:
        """A device tree; its strings end with NUL."""
        tree = self.folder / "device-tree"
        tree.mkdir()
        for name, text in (("model", model), ("compatible", compatible)):
            if text is not None:
                (tree / name).write_bytes(text.encode() + b"\0")
        return f'DEVICE_TREE "{self.folder / "absent"}" "{tree}"'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


class TestByName:
    @pytest.mark.parametrize(
        ("boards", "toolkit", "found"),
        [
            ("orin", CUDA_12, "87"),
            ("orin-nano", CUDA_13, "87"),
            ('"Jetson Orin NX"', CUDA_13, "87"),
            ("AGX-ORIN", CUDA_13, "87"),
            ("nano", CUDA_12, "53"),
            ("tx1", CUDA_12, "53"),
            ("tx2", CUDA_12, "62"),
            ("xavier-nx", CUDA_12, "72"),
            ("agx-thor", CUDA_12, "101"),
            ("agx-thor", CUDA_13, "110"),
            ("agx-thor", (*CUDA_12, 110), "110"),
            ("orin-nano agx-orin agx-thor", CUDA_13, "87;110"),
        ],
    )
    def test_known(
        self, project: Project, boards: str, toolkit: tuple[int, ...], found: str
    ) -> None:
        assert f"found=[{found}]" in project.run(f"BOARDS {boards}", toolkit).stderr

    @pytest.mark.parametrize("board", ["raspberry-pi", "orinoco", "87"])
    def test_unknown(self, project: Project, board: str) -> None:
        result = project.run(f"BOARDS orin {board}")
        assert result.code != 0
        assert f'"{board}" is no Jetson that is known; expected one of nano, tx1' in result.text

    def test_not_in_the_toolkit(self, project: Project) -> None:
        result = project.run("BOARDS agx-xavier", CUDA_13)
        assert result.code != 0
        assert "cannot compile for agx-xavier (72), only for 75, 80, 86, 87," in result.text

    def test_mistyped_arguments(self, project: Project) -> None:
        result = project.run("BOARD orin")
        assert result.code != 0
        assert 'cannot read "BOARD;orin"' in result.text


class TestOnTheDevice:
    @pytest.mark.parametrize(
        ("model", "compatible", "found"),
        [
            ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", None, "87"),
            ("NVIDIA Jetson AGX Thor Developer Kit", None, "110"),
            ("NVIDIA Jetson Nano Developer Kit", None, "53"),
            ("Jetson-AGX", "nvidia,p2972-0000\0nvidia,tegra194", "72"),
            ("quill", None, "62"),
            ("Carrier of somebody", "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234", "87"),
            (None, "nvidia,tegra264", "110"),
        ],
    )
    def test_known(
        self, project: Project, model: str | None, compatible: str | None, found: str
    ) -> None:
        result = project.run(project.board(model, compatible), (*CUDA_13, 53, 62, 72))
        assert f"found=[{found}]" in result.stderr, result.text

    def test_another_board(self, project: Project) -> None:
        result = project.run(project.board("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5"))
        assert result.code != 0
        assert "Raspberry Pi 5" in result.text
        assert "is no Jetson that is known" in result.text

    def test_no_device_tree(self, project: Project) -> None:
        result = project.run(f'DEVICE_TREE "{project.folder / "absent"}"')
        assert result.code != 0
        assert "this machine has no device tree" in result.text
        assert "orin-nano, agx-thor" in result.text


class TestToolkit:
    def test_too_old_to_list(self, project: Project) -> None:
        nvcc = script(project.folder / "nvcc", 'echo "nvcc fatal: Unknown option" >&2; exit 1')
        result = project.call(f'BOARDS nano NVCC "{nvcc}"')
        assert result.code != 0
        assert "lists nothing (1: nvcc fatal: Unknown option)" in result.text

    def test_not_there(self, project: Project) -> None:
        result = project.call(f'BOARDS orin NVCC "{project.folder / "absent"}"')
        assert result.code != 0
        assert "--list-gpu-arch` lists nothing" in result.text

    @pytest.mark.parametrize("variable", ["CUDACXX", "CUDAToolkit_ROOT", "CUDA_PATH"])
    def test_found_by_the_environment(self, project: Project, variable: str) -> None:
        # A list that no real toolkit has, so that one on the PATH cannot answer for it.
        nvcc = fake_nvcc(project.folder / "cuda/bin/nvcc", 101)
        value = nvcc if variable == "CUDACXX" else nvcc.parents[1]
        result = project.call("BOARDS thor", **{variable: str(value)})
        assert "found=[101]" in result.stderr, result.text


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="the CUDA toolkit is not installed")
def test_a_real_toolkit_compiles_for_what_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/kernel.cu").write_text("__global__ void nothing() {}\n")
    lines = (
        "include(JetsonArchitectures)\n"
        "jetson_architectures(CMAKE_CUDA_ARCHITECTURES BOARDS orin-nano)\n"
        "enable_language(CUDA)\nadd_library(kernel OBJECT kernel.cu)\n"
        'message("compiles for [${CMAKE_CUDA_ARCHITECTURES}]")'
    )
    configured = configure(tmp_path / "project", lines, languages="CXX")
    assert "compiles for [87]" in configured.stderr, configured.text
