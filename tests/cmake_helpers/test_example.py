"""The C++ host, built against stand-ins for TensorRT, CUDA, OpenCV and nlohmann, and run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from patchline.runtime.contract import ModelSize
from patchline.runtime.engine.plans.record import BuildOptions, Device, PlanRecord
from patchline.runtime.preprocess import preprocess

from .tools import HELPERS, STAND_IN, Run, needs_cmake, needs_compiler, run, script, write

pytestmark = [needs_cmake, needs_compiler]

HEIGHT, WIDTH = 6, 8
SIZE = ModelSize(height=HEIGHT, width=WIDTH)
DIGEST = "a" * 64
PARTS_OF_BGR = np.array([1, 2, 4]) / 7

Pixels = npt.NDArray[np.integer[Any]]

HEADERS = {
    "tensorrt": "".join(
        f"#define NV_TENSORRT_{part} {number}\n"
        for part, number in (("MAJOR", 10), ("MINOR", 3), ("PATCH", 0))
    ),
    "tensorrt-rtx": "".join(
        f"#define TRT_{part}_RTX {number}\n#define NV_TENSORRT_{part} TRT_{part}_RTX\n"
        for part, number in (("MAJOR", 1), ("MINOR", 7), ("PATCH", 1))
    ),
}
LIBRARIES = {"tensorrt": "libnvinfer.so", "tensorrt-rtx": "libtensorrt_rtx.so"}


def installed(folder: Path, flavour: str) -> list[str]:
    """Stand-ins installed as the real packages are; the definitions that let CMake find them."""
    trt, cuda, packages = folder / "TensorRT", folder / "cuda", folder / "packages"
    shutil.copytree(STAND_IN / "tensorrt", trt / "include")
    write(trt / "include/NvInferVersion.h", HEADERS[flavour])
    shutil.copytree(STAND_IN / "cuda", cuda / "include")
    for name in ("opencv2", "nlohmann"):
        shutil.copytree(STAND_IN / name, packages / "include" / name)
    library(cuda / "include/cudart.cpp", cuda / "lib64/libcudart.so", cuda / "include")
    source = trt / "include/nvinfer.cpp"
    library(source, trt / "lib" / LIBRARIES[flavour], trt / "include", cuda / "include")
    write(cuda / "include/cuda_runtime.h")  # CMake knows the toolkit by it
    script(cuda / "bin/nvcc", 'echo "Cuda compilation tools, release 12.6, V12.6.68"')
    interface = (
        "add_library({0} INTERFACE IMPORTED)\n"
        f'target_include_directories({{0}} INTERFACE "{packages / "include"}")\n'
    )
    opencv = interface.format("opencv_core") + "set(OpenCV_LIBS opencv_core)\n"
    write(packages / "lib/cmake/OpenCV/OpenCVConfig.cmake", opencv)
    nlohmann = interface.format("nlohmann_json::nlohmann_json")
    write(packages / "lib/cmake/nlohmann_json/nlohmann_jsonConfig.cmake", nlohmann)
    return [
        f"-DTensorRT_ROOT={trt}",
        f"-DCUDAToolkit_ROOT={cuda}",
        f"-DCMAKE_PREFIX_PATH={packages}",
    ]


def library(source: Path, target: Path, *include: Path) -> None:
    target.parent.mkdir(parents=True)
    folders = [f"-I{folder}" for folder in include]
    built = run(["g++", "-std=c++17", "-shared", "-fPIC", *folders, source, "-o", target])
    assert built.code == 0, built.text


def build(folder: Path, flavour: str) -> tuple[Run, Path]:
    strict = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror"
    out = folder / "build"
    command = ["cmake", "-S", HELPERS / "example", "-B", out, strict, *installed(folder, flavour)]
    configured = run(command)
    assert configured.code == 0, configured.text
    return run(["cmake", "--build", out]), out / "score_images"


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    built, path = build(tmp_path_factory.mktemp("example"), request.param)
    assert built.code == 0, built.text
    return path


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "class": 'the "bottle"',
        "model_size": {"height": HEIGHT, "width": WIDTH},
        "threshold": {"value": 0.5, "interval": [0.1, 0.9], "tail": None},
        "onnx": {"file": "bottle.onnx", "sha256": DIGEST},
    } | changes


def record(device: Device | None) -> dict[str, Any]:
    """A plan's record as build-engine writes it."""
    written = PlanRecord(
        onnx_sha256=DIGEST,
        plan_sha256="c" * 64,
        flavour="tensorrt",
        version="11.4.0",
        device=device,
        options=BuildOptions(),
    )
    fields: dict[str, Any] = json.loads(written.to_json())
    return fields


class Model:
    """A folder with a plan, its manifest and pictures."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder, self.program = folder, program
        self.plan()
        self.manifest()

    def plan(self, words: str = f"height={HEIGHT} width={WIDTH}") -> None:
        write(self.folder / "bottle.trt", f"STAND-IN\n{words}\n")

    def manifest(self, **changes: Any) -> None:
        write(self.folder / "bottle.json", json.dumps(manifest(**changes)))

    def record(self, **fields: Any) -> None:
        write(self.folder / "bottle.trt.json", json.dumps(fields))

    def picture(self, name: str, bgr: Pixels) -> str:
        """A binary PPM, 8- or 16-bit by its dtype."""
        height, width = bgr.shape[:2]
        wide = bgr.dtype == np.uint16
        pixels = bgr[..., ::-1].astype(">u2" if wide else "u1").tobytes()
        top = f"P6 {width} {height} {65535 if wide else 255}\n"
        (self.folder / name).write_bytes(top.encode() + pixels)
        return name

    def run(self, *arguments: str, **env: str) -> Run:
        return run([self.program, *arguments], cwd=self.folder, **env)

    def score(self, *pictures: str, **env: str) -> Run:
        return self.run("bottle.trt", *pictures, **env)


@pytest.fixture
def model(tmp_path: Path, program: Path) -> Model:
    return Model(tmp_path, program)


def noise(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def flat(blue: int, green: int, red: int) -> npt.NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), (blue, green, red), np.uint8)


def expected_score(bgr: npt.NDArray[Any]) -> float:
    """What the stand-in engine computes, on the project's own preprocessing."""
    return float((preprocess(bgr, SIZE) @ PARTS_OF_BGR).mean() / 255)


def lines(result: Run) -> list[dict[str, Any]]:
    assert result.code == 0, result.text
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(result: Run) -> str:
    """The one sentence of an error."""
    assert result.code == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("score_images: ")
    return last


class TestScores:
    def test_one_line_per_picture(self, model: Model) -> None:
        dark, bright = flat(10, 20, 30), flat(250, 240, 230)
        names = [model.picture("dark.ppm", dark), model.picture("bright.ppm", bright)]
        result = model.score(*names)
        found = lines(result)
        assert result.stderr == ""
        assert [list(line) for line in found] == [["file", "score", "threshold", "anomalous"]] * 2
        assert [line["file"] for line in found] == names
        assert [line["anomalous"] for line in found] == [False, True]
        assert [line["threshold"] for line in found] == [0.5, 0.5]
        for line, picture in zip(found, (dark, bright), strict=True):
            assert line["score"] == pytest.approx(expected_score(picture), abs=1e-6)

    def test_at_the_threshold_is_anomalous(self, model: Model) -> None:
        model.plan(f"height={HEIGHT} width={WIDTH} score=0.5")
        name = model.picture("a.ppm", noise())
        assert lines(model.score(name))[0]["anomalous"] is True
        model.manifest(threshold={"value": 0.5000001})
        assert lines(model.score(name))[0]["anomalous"] is False

    @pytest.mark.parametrize(
        ("height", "width", "steps"),
        [
            (HEIGHT * 2, WIDTH * 3, ["24x12 to 8x6 area", "8x6 to 8x6 linear"]),
            (HEIGHT // 2, WIDTH // 2, ["4x3 to 4x3 area", "4x3 to 8x6 linear"]),
            (HEIGHT // 2, WIDTH * 3, ["24x3 to 8x3 area", "8x3 to 8x6 linear"]),
        ],
    )
    def test_resizes_as_the_project_does(
        self, model: Model, height: int, width: int, steps: list[str]
    ) -> None:
        picture = noise(height, width)
        result = model.score(model.picture("a.ppm", picture))
        assert result.stderr.splitlines() == [f"resize {step}" for step in steps]
        # The stand-in rounds to whole grey levels like OpenCV, but not always the same way.
        assert lines(result)[0]["score"] == pytest.approx(expected_score(picture), abs=1 / 255)

    def test_sixteen_bits_by_a_fixed_factor(self, model: Model) -> None:
        eight = 128 + noise() // 4  # no black and no white: stretching would show
        picture = eight.astype(np.uint16) * 257
        found = lines(model.score(model.picture("a.ppm", picture)))
        assert found[0]["score"] == pytest.approx(expected_score(eight), abs=1e-6)
        assert found[0]["score"] == pytest.approx(expected_score(picture), abs=1e-6)

    def test_gray(self, model: Model) -> None:
        gray = noise()[..., 0]
        (model.folder / "a.pgm").write_bytes(f"P5 {WIDTH} {HEIGHT} 255\n".encode() + gray.tobytes())
        found = lines(model.score("a.pgm"))
        assert found[0]["score"] == pytest.approx(gray.mean() / 255, abs=1e-6)

    def test_a_plan_of_batch_one(self, model: Model) -> None:
        model.plan(f"height={HEIGHT} width={WIDTH} batch=1")
        assert len(lines(model.score(model.picture("a.ppm", noise())))) == 1

    def test_a_matching_record_is_no_obstacle(self, model: Model) -> None:
        model.record(onnx_sha256=DIGEST, version="10.3.0")
        assert len(lines(model.score(model.picture("a.ppm", noise())))) == 1

    def test_a_name_with_quotes(self, model: Model) -> None:
        name = model.picture('it is "a".ppm', noise())
        assert lines(model.score(name))[0]["file"] == name


@pytest.mark.parametrize("arguments", [(), ("bottle.trt",)])
def test_usage(model: Model, arguments: tuple[str, ...]) -> None:
    result = model.run(*arguments)
    assert result.code == 2
    assert result.stderr == "usage: score_images PLAN.trt IMAGE...\n"


class TestManifests:
    def test_missing(self, model: Model) -> None:
        (model.folder / "bottle.json").unlink()
        assert "bottle.json cannot be read. It holds the threshold" in refused(model.score("a.ppm"))

    @pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": 1} 2', "not JSON"])
    def test_no_manifest(self, model: Model, text: str) -> None:
        write(model.folder / "bottle.json", text)
        assert "bottle.json is no manifest" in refused(model.score("a.ppm"))

    def test_of_a_graph_without_a_bank(self, model: Model) -> None:
        model.manifest(kind="graph", graph_version=1)
        assert refused(model.score("a.ppm")) == (
            "score_images: bottle.json describes a model without a memory bank, and this program "
            "hands over none. Give a plan that holds its own: export-model without --bank external"
        )

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"kind": "model", "schema_version": 2}, "schema_version is 2, expected 1"),
            ({"schema_version": 2}, "schema_version is 2, expected 1"),
            ({"schema_version": None}, "schema_version is null, expected 1"),
            ({"schema_version": 1.0}, "schema_version is 1.0, expected 1"),
            ({"model_size": {"height": 6}}, "has no model_size.width"),
            ({"model_size": 6}, "has no model_size.height"),
            ({"model_size": {"height": 0, "width": 8}}, "model_size.height is 0, expected"),
            ({"model_size": {"height": 6, "width": 8.5}}, "model_size.width is 8.5, expected"),
            ({"model_size": {"height": 6, "width": 10**9}}, "model_size.width is 1000000000, exp"),
            ({"threshold": {}}, "has no threshold.value"),
            ({"threshold": {"value": "0.5"}}, 'threshold.value is "0.5", expected a finite'),
            ({"threshold": {"value": None}}, "threshold.value is null, expected a finite"),
            ({"onnx": None}, "has no onnx.sha256"),
        ],
    )
    def test_wrong_field(self, model: Model, changes: dict[str, Any], message: str) -> None:
        model.manifest(**changes)
        assert message in refused(model.score(model.picture("a.ppm", noise())))


class TestPlans:
    def refused(self, model: Model, **env: str) -> str:
        return refused(model.score(model.picture("a.ppm", noise()), **env))

    def test_missing(self, model: Model) -> None:
        (model.folder / "bottle.trt").unlink()
        assert "bottle.trt cannot be read" in self.refused(model)

    def test_of_another_machine(self, model: Model) -> None:
        write(model.folder / "bottle.trt", "something else")
        model.record(**record(Device(gpu="NVIDIA H200", compute_capability="9.0")))
        result = model.score(model.picture("a.ppm", noise()))
        assert "TensorRT: the magic tag does not match" in result.stderr.splitlines()
        flavour = "tensorrt 10.3.0" if "10.3.0" in refused(result) else "tensorrt-rtx 1.7.1"
        assert refused(result) == (
            f"score_images: bottle.trt does not load with {flavour} on Stand-in (8.7); it was "
            "built with tensorrt 11.4.0 for NVIDIA H200 (9.0). Rebuild it here: build-engine "
            "bottle.onnx"
        )

    def test_built_where_there_was_no_gpu(self, model: Model) -> None:
        write(model.folder / "bottle.trt", "something else")
        model.record(**record(None))
        assert "; it was built with tensorrt 11.4.0 for no GPU. Rebuild" in self.refused(model)

    @pytest.mark.parametrize("fields", [{}, {"device": "Orin"}, {"device": {"gpu": 7}}])
    def test_a_record_of_another_kind_does_no_harm(
        self, model: Model, fields: dict[str, Any]
    ) -> None:
        write(model.folder / "bottle.trt", "something else")
        model.record(**fields)
        assert "; it was built with ? ? for " in self.refused(model)

    def test_that_does_not_load_without_a_record(self, model: Model) -> None:
        write(model.folder / "bottle.trt", "something else")
        message = self.refused(model)
        assert "on Stand-in (8.7). Rebuild it here: build-engine bottle.onnx" in message

    def test_of_another_model(self, model: Model) -> None:
        model.record(onnx_sha256="b" * 64)
        message = self.refused(model)
        assert "bottle.trt was built from another model than bottle.json describes" in message

    @pytest.mark.parametrize(
        ("words", "wrong"),
        [
            ("height=6 width=10", "frames, anomaly_map, influence_map"),
            ("height=6 width=8 batch=4", "frames, image_score, anomaly_map, influence_map"),
            ("height=6 width=8 score_type=half", "image_score"),
            ("height=6 width=8 input=images", "frames"),
        ],
    )
    def test_that_breaks_the_contract(self, model: Model, words: str, wrong: str) -> None:
        model.plan(words)
        message = self.refused(model)
        assert f"in name, type or shape of: {wrong}. Rebuild it here" in message

    def test_that_takes_its_bank_as_inputs(self, model: Model) -> None:
        model.plan(f"height={HEIGHT} width={WIDTH} bank=beside")
        assert self.refused(model) == (
            "score_images: bottle.trt has inputs other than frames: memory_bank, bank_squares, "
            "bank_statistics. Give a plan that holds its memory bank: export-model without "
            "--bank external"
        )
        assert "not released" not in model.score("a.ppm").stderr

    @pytest.mark.parametrize("tensors", [3, 5])
    def test_with_other_tensors(self, model: Model, tensors: int) -> None:
        model.plan(f"height={HEIGHT} width={WIDTH} tensors={tensors}")
        assert f"has {tensors} inputs and outputs, expected frames" in self.refused(model)

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            ("context=no", "bottle.trt cannot run: too little GPU memory is free"),
            ("run=no", "TensorRT refused to run the plan"),
            ("score=nan", "a.ppm: the score is nan, expected a finite number"),
            ("score=inf", "a.ppm: the score is inf, expected a finite number"),
        ],
    )
    def test_that_fails_while_it_runs(self, model: Model, word: str, message: str) -> None:
        model.plan(f"height={HEIGHT} width={WIDTH} {word}")
        assert message in self.refused(model)
        assert "not released" not in model.score("a.ppm").stderr

    @pytest.mark.parametrize(
        ("cuda", "message"),
        [
            ("none", "CUDA failed while opening the first GPU: no CUDA-capable device"),
            ("full", "CUDA failed while allocating 144 bytes: out of memory"),
        ],
    )
    def test_without_a_gpu_or_its_memory(self, model: Model, cuda: str, message: str) -> None:
        assert message in self.refused(model, STAND_IN_CUDA=cuda)
        assert "not released" not in model.score("a.ppm", STAND_IN_CUDA=cuda).stderr


class TestPictures:
    def test_missing(self, model: Model) -> None:
        assert "absent.ppm cannot be read" in refused(model.score("absent.ppm"))

    def test_a_folder(self, model: Model) -> None:
        assert ". cannot be read" in refused(model.score("."))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "a.jpg is empty, expected a whole picture"),
            (b"no picture", "a.jpg is not a picture, or damaged"),
            (b"\xff\xd8\xff\xe1 thumbnail \xff\xda..\xff\xd9 \xff\xda cut", "a.jpg is truncated"),
            (b"\xff\xd8\xff\xe0 \xff\xda cut", "a.jpg is truncated"),
            (b"\x89PNG\r\n\x1a\n cut", "a.jpg is truncated"),
            # Whole as far as the check goes; the stand-in reads neither.
            (b"\xff\xd8\xff\xe0 \xff\xda pixels \xff\xd9", "a.jpg is not a picture"),
            (b"\x89PNG\r\n\x1a\n pixels IEND", "a.jpg is not a picture"),
        ],
    )
    def test_damaged(self, model: Model, content: bytes, message: str) -> None:
        (model.folder / "a.jpg").write_bytes(content)
        assert message in refused(model.score("a.jpg"))

    def test_the_lines_before_a_bad_one_stand(self, model: Model) -> None:
        result = model.score(model.picture("a.ppm", noise()), "absent.ppm")
        assert result.code == 1
        assert json.loads(result.stdout)["file"] == "a.ppm"


def test_an_older_tensorrt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = HEADERS["tensorrt"].replace("MAJOR 10", "MAJOR 8")
    monkeypatch.setitem(HEADERS, "tensorrt", old)
    definitions = installed(tmp_path, "tensorrt")
    configured = run(["cmake", "-S", HELPERS / "example", "-B", tmp_path / "build", *definitions])
    assert configured.code != 0
    assert "TensorRT 8.3.0 was found, expected 10.3 or newer" in configured.text
