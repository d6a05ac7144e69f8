"""find_package(TensorRT) against laid-out installations: layouts, flavours, versions, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from .tools import Run, configure, needs_cmake, write

pytestmark = needs_cmake

PRINT = """
foreach(name IN ITEMS FOUND FOUND_FLAVOUR VERSION VERSION_MAJOR OnnxParser_FOUND Plugin_FOUND)
  message("${name}=[${TensorRT_${name}}]")
endforeach()
foreach(name IN ITEMS nvinfer nvonnxparser nvinfer_plugin)
  if(TARGET TensorRT::${name})
    get_target_property(where TensorRT::${name} IMPORTED_LOCATION)
    get_target_property(headers TensorRT::${name} INTERFACE_INCLUDE_DIRECTORIES)
    file(REAL_PATH "${headers}" headers)
    message("${name}=[${where}] headers=[${headers}]")
  endif()
endforeach()
"""

X86 = "x86_64-linux-gnu"
ARM = "aarch64-linux-gnu"


def direct(version: str) -> str:
    """The header of TensorRT up to 10.x: plain numbers."""
    numbers = zip(("MAJOR", "MINOR", "PATCH", "BUILD"), version.split("."), strict=False)
    return "".join(f"#define NV_TENSORRT_{part} {n} //!< TensorRT {part}\n" for part, n in numbers)


def chained(version: str, suffix: str = "ENTERPRISE") -> str:
    """The header of newer TensorRT and of TensorRT for RTX: one macro names another."""
    parts = list(zip(("MAJOR", "MINOR", "PATCH", "BUILD"), version.split("."), strict=False))
    return "".join(f"#define TRT_{part}_{suffix} {n}\n" for part, n in parts) + "".join(
        f"#define NV_TENSORRT_{part} TRT_{part}_{suffix} //!< {part}\n" for part, _ in parts
    )


def both(enterprise: str, rtx: str) -> str:
    """One header for both flavours."""
    parts = ("MAJOR", "MINOR", "PATCH")
    lines = [
        f"#define TRT_{part}_{suffix} {number}"
        for suffix, version in (("ENTERPRISE", enterprise), ("RTX", rtx))
        for part, number in zip(parts, version.split("."), strict=True)
    ]
    for condition, suffix in (("#if TRT_RTX", "RTX"), ("#else", "ENTERPRISE")):
        lines += [condition, *(f"#  define NV_TENSORRT_{p} (TRT_{p}_{suffix})" for p in parts)]
    return "\n".join([*lines, "#endif\n"])


def tensorrt(
    include: Path, lib: Path, header: str = direct("10.3.0.30"), *, parser: bool = True
) -> None:
    for name in ("NvInfer.h", "NvInferPlugin.h", *(["NvOnnxParser.h"] if parser else [])):
        write(include / name)
    write(include / "NvInferVersion.h", header)
    for name in ("nvinfer", "nvinfer_plugin", *(["nvonnxparser"] if parser else [])):
        write(lib / f"lib{name}.so")


def rtx(root: Path, version: str = "1.7.1.116") -> None:
    for name in ("NvInfer.h", "NvOnnxParser.h"):
        write(root / "include" / name)
    write(root / "include" / "NvInferVersion.h", chained(version, "RTX"))
    for name in ("tensorrt_rtx", "tensorrt_onnxparser_rtx"):
        write(root / "lib" / f"lib{name}.so")


def debian(root: Path, triplet: str, header: str = direct("10.3.0.30")) -> None:
    tensorrt(root / "usr/include" / triplet, root / "usr/lib" / triplet, header)


class Machine:
    """A root folder that CMake must not look out of."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "machine"
        self.root.mkdir()
        self._project = folder / "project"

    def find(self, arguments: str = "REQUIRED", *definitions: str, **env: str) -> Run:
        return self.configure(f"find_package(TensorRT {arguments})\n{PRINT}", *definitions, **env)

    def configure(self, lines: str, *definitions: str, **env: str) -> Run:
        modes = [f"-DCMAKE_FIND_ROOT_PATH_MODE_{kind}=ONLY" for kind in ("LIBRARY", "INCLUDE")]
        root = f"-DCMAKE_FIND_ROOT_PATH={self.root}"
        return configure(self._project, lines, root, *modes, *definitions, **env)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def assert_found(found: Run, flavour: str, version: str, library: Path, headers: Path) -> None:
    assert found.code == 0, found.text
    assert f"FOUND_FLAVOUR=[{flavour}]" in found.stderr
    assert f"VERSION=[{version}]" in found.stderr
    assert f"nvinfer=[{library}] headers=[{headers}]" in found.stderr


class TestLayouts:
    @pytest.mark.parametrize("triplet", [X86, ARM])
    def test_debian_and_jetpack(self, machine: Machine, triplet: str) -> None:
        debian(machine.root, triplet)
        debian(machine.root, {X86: ARM, ARM: X86}[triplet], direct("10.9.0.1"))
        found = machine.find("REQUIRED", f"-DCMAKE_LIBRARY_ARCHITECTURE={triplet}")
        lib, include = (machine.root / "usr" / kind / triplet for kind in ("lib", "include"))
        assert_found(found, "tensorrt", "10.3.0.30", lib / "libnvinfer.so", include)
        assert "OnnxParser_FOUND=[TRUE]" in found.stderr
        assert f"nvonnxparser=[{lib / 'libnvonnxparser.so'}]" in found.stderr
        assert f"nvinfer_plugin=[{lib / 'libnvinfer_plugin.so'}]" in found.stderr

    @pytest.mark.parametrize("folder", ["lib", f"targets/{ARM}/lib"])
    @pytest.mark.parametrize("by", ["variable", "environment"])
    def test_unpacked_tar(self, machine: Machine, folder: str, by: str) -> None:
        debian(machine.root, ARM)
        tar = machine.root / "opt/TensorRT-10.16.1.11"
        tensorrt(tar / "include", tar / folder, chained("10.16.1.11"))
        where = [f"-DTensorRT_ROOT={tar}"] if by == "variable" else []
        environment = {"TensorRT_ROOT": str(tar)} if by == "environment" else {}
        arm = f"-DCMAKE_LIBRARY_ARCHITECTURE={ARM}"
        found = machine.find("REQUIRED", arm, *where, **environment)
        library = tar / folder / "libnvinfer.so"
        assert_found(found, "tensorrt", "10.16.1.11", library, tar / "include")

    def test_unpacked_rtx(self, machine: Machine) -> None:
        root = machine.root / "opt/TensorRT-RTX-1.7.1.116"
        rtx(root)
        found = machine.find("REQUIRED", f"-DTensorRT_ROOT={root}")
        library = root / "lib/libtensorrt_rtx.so"
        assert_found(found, "tensorrt-rtx", "1.7.1.116", library, root / "include")
        assert f"nvonnxparser=[{root / 'lib/libtensorrt_onnxparser_rtx.so'}]" in found.stderr

    def test_cross_compiling_by_a_processor_without_a_triplet(self, machine: Machine) -> None:
        debian(machine.root, ARM)
        system = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
        found = machine.find("REQUIRED", *system)
        lib, include = (machine.root / "usr" / kind / ARM for kind in ("lib", "include"))
        assert_found(found, "tensorrt", "10.3.0.30", lib / "libnvinfer.so", include)

    def test_cross_compiling_by_a_sysroot(self, tmp_path: Path) -> None:
        sysroot = tmp_path / "sysroot"
        debian(sysroot, ARM, direct("10.3.9"))
        toolchain = write(
            tmp_path / "toolchain.cmake",
            f'set(CMAKE_SYSTEM_NAME Linux)\nset(CMAKE_SYSROOT "{sysroot}")\n'
            "set(CMAKE_SYSTEM_PROCESSOR aarch64)\nset(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)\n"
            "set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)\n",
        )
        lines = f"find_package(TensorRT REQUIRED)\n{PRINT}"
        found = configure(tmp_path / "project", lines, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}")
        lib, include = (sysroot / "usr" / kind / ARM for kind in ("lib", "include"))
        assert_found(found, "tensorrt", "10.3.9", lib / "libnvinfer.so", include)

    def test_a_place_given_file_by_file(self, machine: Machine) -> None:
        tensorrt(machine.root / "a", machine.root / "b")
        place = [
            f"-DTensorRT_LIBRARY={machine.root / 'b/libnvinfer.so'}",
            f"-DTensorRT_INCLUDE_DIR={machine.root / 'a'}",
        ]
        found = machine.find("REQUIRED", *place)
        library = machine.root / "b/libnvinfer.so"
        assert_found(found, "tensorrt", "10.3.0.30", library, machine.root / "a")

    def test_the_headers_of_a_library_that_was_given(self, machine: Machine) -> None:
        tar = machine.root / "opt/TensorRT-10.3.0.30"
        library = tar / f"targets/{X86}/lib/libnvinfer.so"
        tensorrt(tar / "include", library.parent)
        found = machine.find("REQUIRED", f"-DTensorRT_LIBRARY={library}")
        assert_found(found, "tensorrt", "10.3.0.30", library, tar / "include")


class TestFlavours:
    @pytest.mark.parametrize(
        ("asked", "flavour"),
        [("", "tensorrt"), ("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt-rtx")],
    )
    def test_chosen_where_both_are_installed(
        self, machine: Machine, asked: str, flavour: str
    ) -> None:
        tensorrt(machine.root / "usr/local/include", machine.root / "usr/local/lib")
        rtx(machine.root / "opt/rtx")
        where = f"-DCMAKE_PREFIX_PATH={machine.root / 'opt/rtx'}"
        found = machine.find("REQUIRED", f"-DTensorRT_FLAVOUR={asked}", where)
        assert f"FOUND_FLAVOUR=[{flavour}]" in found.stderr
        place = machine.root / ("usr/local" if flavour == "tensorrt" else "opt/rtx")
        assert f"headers=[{place / 'include'}]" in found.stderr

    def test_another_choice_later_in_the_same_build_folder(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/local/include", machine.root / "usr/local/lib")
        rtx(machine.root / "usr")
        first = machine.find("REQUIRED", "-DTensorRT_FLAVOUR=tensorrt-rtx")
        then = machine.find("REQUIRED", "-DTensorRT_FLAVOUR=tensorrt")
        assert "VERSION=[1.7.1.116]" in first.stderr
        assert "VERSION=[10.3.0.30]" in then.stderr
        assert "libtensorrt_rtx" not in then.stderr

    def test_the_given_root_wins_over_the_system(self, machine: Machine) -> None:
        debian(machine.root, X86)
        rtx(machine.root / "opt/rtx")
        root = f"-DTensorRT_ROOT={machine.root / 'opt/rtx'}"
        found = machine.find("REQUIRED", f"-DCMAKE_LIBRARY_ARCHITECTURE={X86}", root)
        assert "FOUND_FLAVOUR=[tensorrt-rtx]" in found.stderr

    def test_a_root_without_tensorrt_is_told(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib")
        found = machine.find("REQUIRED", f"-DTensorRT_ROOT={machine.root / 'opt/typo'}")
        assert found.code == 0
        assert "typo) holds no TensorRT; taking" in found.text

    def test_unknown(self, machine: Machine) -> None:
        found = machine.find("REQUIRED", "-DTensorRT_FLAVOUR=rtx")
        assert found.code != 0
        assert "TensorRT_FLAVOUR is rtx, expected tensorrt or tensorrt-rtx" in found.text

    def test_headers_of_the_other(self, machine: Machine) -> None:
        header = chained("1.7.1.116", "RTX")
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib", header)
        found = machine.find()
        assert found.code != 0
        assert "is of TensorRT for RTX, and libnvinfer is not" in found.text

    def test_an_rtx_library_with_headers_of_tensorrt(self, machine: Machine) -> None:
        rtx(machine.root / "usr")
        write(machine.root / "usr/include/NvInferVersion.h", direct("10.3.0.30"))
        found = machine.find()
        assert found.code != 0
        assert "is not of TensorRT for RTX, and the library is" in found.text


class TestVersion:
    @pytest.mark.parametrize(
        ("header", "version"),
        [
            (direct("8.6.2.3"), "8.6.2.3"),
            (direct("10.3.0"), "10.3.0"),
            (chained("10.14.1.48"), "10.14.1.48"),
            (chained("11.4.0.106").replace("\n", "\r\n"), "11.4.0.106"),
            (both("10.16.1", "1.3.0"), "10.16.1"),
            ("// #define NV_TENSORRT_MAJOR 9\n" + direct("10.3.0"), "10.3.0"),
            (direct("10.3.0").replace("#define", "  #  define"), "10.3.0"),
            (direct("10.3.0") + "// [a; stray bracket\n", "10.3.0"),
        ],
    )
    def test_every_form_of_the_header(self, machine: Machine, header: str, version: str) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib", header)
        found = machine.find()
        assert f"VERSION=[{version}]" in found.stderr
        assert f"VERSION_MAJOR=[{version.split('.')[0]}]" in found.stderr

    def test_of_rtx_in_a_header_of_both(self, machine: Machine) -> None:
        rtx(machine.root / "usr")
        write(machine.root / "usr/include/NvInferVersion.h", both("10.16.1", "1.3.0"))
        assert "VERSION=[1.3.0]" in machine.find().stderr

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "#define NV_TENSORRT_MAJOR ten\n",
            "#define NV_TENSORRT_MAJOR MAJOR\n#define MAJOR NV_TENSORRT_MAJOR\n",
            direct("10"),
        ],
    )
    def test_unreadable(self, machine: Machine, header: str) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib", header)
        found = machine.find()
        assert found.code != 0
        assert "version in a form that is known" in found.text

    def test_no_version_header(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib")
        (machine.root / "usr/include/NvInferVersion.h").unlink()
        found = machine.find()
        assert found.code != 0
        assert "holds NvInfer.h but no NvInferVersion.h" in found.text

    @pytest.mark.parametrize(
        ("asked", "fits"),
        [
            ("10", True),
            ("10.3", True),
            ("10.3 EXACT", True),
            ("10.3.0.30 EXACT", True),
            ("10.3...<12", True),
            ("10.4", False),
            ("10.2 EXACT", False),
            ("8...<10", False),
        ],
    )
    def test_asked_for(self, machine: Machine, asked: str, fits: bool) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib")
        found = machine.find(asked)
        assert found.code == 0
        assert (f"FOUND=[{'TRUE' if fits else 'FALSE'}]" in found.stderr) is True
        assert ("nvinfer=[" in found.stderr) is fits
        assert ('unsuitable version "10.3.0.30"' in found.text) is not fits


class TestMissing:
    def test_everything(self, machine: Machine) -> None:
        required, optional = machine.find(), machine.find("")
        assert (required.code, optional.code) == (1, 0)
        for found in (required, optional):
            assert "no tensorrt or tensorrt-rtx was found: install libnvinfer-dev" in found.text
        assert "FOUND=[FALSE]" in optional.stderr

    def test_the_chosen_flavour(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib")
        found = machine.find("REQUIRED", "-DTensorRT_FLAVOUR=tensorrt-rtx")
        assert found.code != 0
        assert "no tensorrt-rtx was found" in found.text

    def test_the_development_files(self, machine: Machine) -> None:
        write(machine.root / "usr/lib/libnvinfer.so.10")
        found = machine.find()
        assert found.code != 0
        assert "libnvinfer.so.10 is there, but not what programs are linked with" in found.text

    def test_the_headers(self, machine: Machine) -> None:
        write(machine.root / "usr/lib/libnvinfer.so")
        found = machine.find()
        assert found.code != 0
        assert "libnvinfer.so is there, NvInfer.h is not: install libnvinfer-headers" in found.text

    def test_a_library_without_headers_gives_way_to_a_whole_rtx(self, machine: Machine) -> None:
        write(machine.root / "usr/lib/libnvinfer.so")
        rtx(machine.root / "opt/rtx")
        found = machine.find("REQUIRED", f"-DCMAKE_PREFIX_PATH={machine.root / 'opt/rtx'}")
        assert "FOUND_FLAVOUR=[tensorrt-rtx]" in found.stderr
        assert "libtensorrt_rtx.so instead" in found.text

    def test_an_explicit_choice_does_not_give_way(self, machine: Machine) -> None:
        write(machine.root / "usr/lib/libnvinfer.so")
        rtx(machine.root / "opt/rtx")
        prefix = f"-DCMAKE_PREFIX_PATH={machine.root / 'opt/rtx'}"
        found = machine.find("REQUIRED", prefix, "-DTensorRT_FLAVOUR=tensorrt")
        assert found.code != 0
        assert "is of TensorRT for RTX, and libnvinfer is not" in found.text


class TestComponents:
    def test_present(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib")
        found = machine.find("REQUIRED COMPONENTS OnnxParser Plugin")
        assert "OnnxParser_FOUND=[TRUE]" in found.stderr
        assert "Plugin_FOUND=[TRUE]" in found.stderr

    def test_required_and_missing(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib", parser=False)
        found = machine.find("REQUIRED COMPONENTS OnnxParser")
        assert found.code != 0
        assert "libnvinfer.so has no nvonnxparser beside it" in found.text

    def test_optional_and_missing(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib", parser=False)
        found = machine.find("REQUIRED OPTIONAL_COMPONENTS OnnxParser")
        assert found.code == 0
        assert "OnnxParser_FOUND=[FALSE]" in found.stderr
        assert "nvonnxparser=[" not in found.stderr

    def test_a_parser_elsewhere_is_not_taken(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/local/include", machine.root / "usr/local/lib", parser=False)
        write(machine.root / "usr/lib/libnvonnxparser.so")
        write(machine.root / "usr/local/include/NvOnnxParser.h")
        assert "OnnxParser_FOUND=[FALSE]" in machine.find("REQUIRED").stderr

    def test_plugins_are_no_part_of_rtx(self, machine: Machine) -> None:
        rtx(machine.root / "usr")
        write(machine.root / "usr/lib/libnvinfer_plugin.so")
        found = machine.find("REQUIRED COMPONENTS Plugin")
        assert found.code != 0
        assert "has no nvinfer_plugin beside it" in found.text

    def test_unknown(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib")
        found = machine.find("REQUIRED COMPONENTS Parser")
        assert found.code != 0
        assert "there is no component Parser, only OnnxParser and Plugin" in found.text


class TestASecondTime:
    def test_in_one_configuration(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/include", machine.root / "usr/lib")
        found = machine.configure(
            "find_package(TensorRT REQUIRED)\n"
            f"find_package(TensorRT 10 REQUIRED COMPONENTS OnnxParser)\n{PRINT}"
        )
        assert found.code == 0, found.text
        assert "OnnxParser_FOUND=[TRUE]" in found.stderr

    def test_of_the_other_flavour(self, machine: Machine) -> None:
        tensorrt(machine.root / "usr/local/include", machine.root / "usr/local/lib")
        rtx(machine.root / "usr")
        found = machine.configure(
            "find_package(TensorRT REQUIRED)\nset(TensorRT_FLAVOUR tensorrt-rtx)\n"
            "find_package(TensorRT REQUIRED)"
        )
        assert found.code != 0
        assert "one project cannot hold" in found.text
