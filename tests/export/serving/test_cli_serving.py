"""``export-model --serve``: after an export, for models that are there, and what is refused."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from patchline.export.cli import export_model as command
from patchline.export.cli import serving_options
from patchline.export.serving.found_model import FoundModel, find_model
from patchline.export.serving.text_proto import text_of
from patchline.export.serving.triton_config import CLASS, KIND, described
from patchline.export.serving.verify import sample_frames
from patchline.runtime.contract import FRAMES, OUTPUTS
from tests.commands import Call, Caller

from ..drawn import CLASS_NAME, write_good
from .conftest import OTHER
from .stand_in import Repository

QUICK = (
    "--backbone", "resnet18", "--weights", "random", "--image-size", "64", "--coreset-ratio", "0.4",
    "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """Run ``export-model`` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(Caller(monkeypatch, capsys), command)


def test_a_fit_is_followed_by_the_server_s_files(call: Call) -> None:
    done = call("--cls", CLASS_NAME, *QUICK, "--serve", "triton", "--json")
    assert done.status == 0
    exported, served = done.lines
    assert exported["class"] == CLASS_NAME
    assert served == {
        "class": CLASS_NAME, "serve": "triton", "path": f"models/triton/{CLASS_NAME}",
        "changed": True, "version": 1, "models": [CLASS_NAME],
    }  # fmt: skip
    assert (
        Path(f"models/triton/{CLASS_NAME}/1/model.onnx").read_bytes()
        == Path(f"models/{CLASS_NAME}.onnx").read_bytes()
    )


class TestOnlyServe:
    def test_all_classes_of_a_folder(self, here: Call, external: Path) -> None:
        words = ("--cls", "all", "--out", external, "--serve", "triton", "--only-serve")
        done = here(*words)
        assert done.status == 0
        lines = done.stdout.splitlines()
        assert lines[0].startswith(f"{CLASS_NAME}: models/triton/{CLASS_NAME} version 1, with ")
        assert lines[0].endswith("(written)")
        assert lines[1].startswith(f"{OTHER}: models/triton/{OTHER} version 1, with ")
        repository = Repository(Path("models/triton"))
        frames = sample_frames(find_model(external, OTHER).manifest.model_size)
        assert set(repository.infer(OTHER, 1, {FRAMES: frames})) == set(OUTPUTS)
        assert all(line.endswith("(unchanged)") for line in here(*words).stdout.splitlines())

    def test_deepstream_gets_a_folder_of_its_own(self, here: Call, model: Path) -> None:
        done = here(
            "--cls", CLASS_NAME, "--out", model.parent, "--serve", "deepstream", "--only-serve",
            "--json",
        )  # fmt: skip
        assert done.status == 0
        assert done.document == {
            "class": CLASS_NAME,
            "serve": "deepstream",
            "path": f"models/deepstream/config_infer_primary_{CLASS_NAME}.txt",
            "changed": True,
        }

    @pytest.mark.parametrize("is_json", [False, True])
    def test_a_class_that_cannot_be_served_does_not_stop_the_others(
        self, here: Call, external: Path, is_json: bool
    ) -> None:
        """The first by name is damaged; the last one's file is another class's."""
        bank = external / f"{CLASS_NAME}.bank"
        (external / "zip.bank").write_bytes((external / f"{OTHER}.bank").read_bytes())
        bank.write_bytes(bank.read_bytes()[:-100])
        done = here(
            "--cls", "all", "--out", external, "--serve", "triton", "--only-serve",
            *["--json"] * is_json,
        )  # fmt: skip
        assert done.status == 1
        first, last = done.sentences
        assert first.startswith(f"error: {CLASS_NAME}: ")
        assert last.startswith("error: zip: ") and "is of the class washer" in last
        assert Path(f"models/triton/{OTHER}/config.pbtxt").is_file()
        if is_json:
            assert [line["class"] for line in done.lines] == [CLASS_NAME, OTHER, "zip"]
            assert done.lines[0] == {
                "class": CLASS_NAME, "serve": "triton", "result": "failed",
                "error": first.removeprefix(f"error: {CLASS_NAME}: "),
            }  # fmt: skip
            assert done.lines[1]["version"] == 1
        else:
            (line,) = done.stdout.splitlines()
            assert line.startswith(f"{OTHER}: models/triton/{OTHER} version 1")

    def test_a_fault_of_ours_in_one_class_is_shown_whole(
        self, here: Call, external: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = serving_options._serve

        def faulty(serving: Any, out: Path, name: str, place: Any) -> dict[str, Any]:
            if name == CLASS_NAME:
                raise RuntimeError("a fault")
            return real(serving, out, name, place)

        monkeypatch.setattr(serving_options, "_serve", faulty)
        done = here("--cls", "all", "--out", external, "--serve", "deepstream", "--only-serve")
        assert done.status == 1
        assert "Traceback" in done.stderr
        assert done.stderr.rstrip().endswith(f"error: {CLASS_NAME}: RuntimeError: a fault")
        assert Path(f"models/deepstream/config_infer_primary_{OTHER}.txt").is_file()

    def test_options_of_a_fit_are_refused(self, here: Call, model: Path) -> None:
        done = here(
            "--cls", CLASS_NAME, "--out", model.parent, "--serve", "triton", "--only-serve",
            "--backbone", "resnet18", "--data", "data",
        )  # fmt: skip
        assert done.status == 1
        assert "fits nothing, and backbone, data would not be used" in done.sentence

    def test_a_class_without_a_model_is_an_error(self, here: Call, model: Path) -> None:
        done = here("--cls", "cap", "--out", model.parent, "--serve", "triton", "--only-serve")
        assert done.status == 1
        assert "cap.onnx does not exist" in done.sentence

    def test_a_plan_of_another_file_is_refused(self, here: Call, model: Path) -> None:
        words = ("--cls", CLASS_NAME, "--out", model.parent, "--serve", "triton", "--only-serve")
        done = here(*words, "--serve-plan")
        assert done.status == 1
        assert "gasket.trt.json is missing" in done.sentence


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--serve-dir", "d"), "--serve-dir would do nothing without a server"),
        (("--only-serve", "--serve-plan"), "--only-serve, --serve-plan would do nothing"),
        (("--serve", "deepstream", "--serve-plan", "--only-serve"), "--serve-plan is Triton's"),
        (("--serve", "triton", "--serve-plan"), "add --only-serve"),
    ],
)
def test_options_that_contradict_each_other_are_refused_at_once(
    here: Call, words: tuple[str, ...], message: str
) -> None:
    done = here("--cls", CLASS_NAME, *words)
    assert done.status == 1
    assert message in done.sentence


def test_an_unknown_server_is_a_usage_error(here: Call) -> None:
    done = here("--cls", CLASS_NAME, "--serve", "tensorflow")
    assert done.status == 2
    assert "'triton', 'deepstream'" in done.stderr


def test_another_s_model_is_refused_before_the_fit(
    here: Call, drawn_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "serving" / CLASS_NAME
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text('name: "gasket"\n')
    done = here(
        "--cls", CLASS_NAME, *QUICK, "--data", drawn_data, "--serve", "triton", "--serve-dir",
        folder.parent,
    )  # fmt: skip
    assert done.status == 1
    assert "export-model did not write it" in done.sentence
    assert not list(Path("models").glob("*.onnx"))


@pytest.mark.parametrize(
    ("bank", "there", "message"),
    [
        ((), "ensemble", "expected kind model, class gasket"),
        (("--bank", "external"), "model", "expected kind ensemble, class gasket"),
    ],
)
@pytest.mark.parametrize("classes", [(CLASS_NAME,), (CLASS_NAME, "lids")])
def test_a_model_of_the_other_kind_is_refused_before_the_fit(
    here: Call, drawn_data: Path, tmp_path: Path, bank: tuple[str, ...], there: str, message: str,
    classes: tuple[str, ...],
) -> None:  # fmt: skip
    folder = tmp_path / "serving" / CLASS_NAME
    folder.mkdir(parents=True)
    parameters = [
        {"key": key, "value": {"string_value": value}}
        for key, value in ((KIND, there), (CLASS, CLASS_NAME))
    ]
    (folder / "config.pbtxt").write_text(text_of({"parameters": parameters}))
    data = Path(shutil.copytree(drawn_data, tmp_path / "pictures"))
    write_good(data / "lids", 2, first_seed=900)
    done = here(
        "--cls", *classes, *QUICK, *bank, "--data", data, "--serve", "triton", "--serve-dir",
        folder.parent,
    )  # fmt: skip
    assert done.status == 1
    assert message in done.sentence
    assert not list(Path("models").glob("*.onnx")) and "class 1 of" not in done.stderr


def test_an_extension_is_refused_before_it_is_made(here: Call, model: Path) -> None:
    write_good(Path("new"), 2, first_seed=2000)
    folder = Path("models/triton", CLASS_NAME)
    folder.mkdir(parents=True)
    owner = [
        {"key": key, "value": {"string_value": value}}
        for key, value in ((KIND, "ensemble"), (CLASS, CLASS_NAME))
    ]
    (folder / "config.pbtxt").write_text(text_of({"parameters": owner}))
    before = model.read_bytes()
    done = here(
        "--cls", CLASS_NAME, "--extend", "new", "--out", model.parent, "--weights", "random",
        "--serve", "triton",
    )  # fmt: skip
    assert done.status == 1
    assert "it is of kind ensemble, class gasket, expected kind model" in done.sentence
    assert model.read_bytes() == before


def test_the_place_of_a_bank_that_is_asked_for() -> None:
    place = serving_options.place_asked
    assert place({}, is_again=False) == "embedded"
    assert place({}, is_again=True) is None
    for is_again in (False, True):
        assert place({"bank": "external"}, is_again=is_again) == "external"
        assert place({"bank": "nowhere"}, is_again=is_again) is None


def test_an_extended_model_is_served(here: Call, model: Path) -> None:
    write_good(Path("new"), 2, first_seed=2000)
    done = here(
        "--cls", CLASS_NAME, "--extend", "new", "--out", model.parent, "--weights", "random",
        "--serve", "triton", "--json",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    served = json.loads(done.stdout.splitlines()[-1])
    assert (served["path"], served["version"]) == (f"models/triton/{CLASS_NAME}", 1)


class TestPage:
    PAGE = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")

    @pytest.mark.parametrize("name", ["serve", "serve_dir", "only_serve", "serve_plan"])
    def test_every_option_is_on_it(self, name: str) -> None:
        assert name in inspect.signature(command.export_model).parameters
        assert f"`--{name.replace('_', '-')}" in self.PAGE

    @pytest.mark.parametrize(
        "message",
        [
            " is there already and is not what would be written: ",
            " are both of the class ",
            "another export-model has been writing to ",
            " is called like the model that holds the bank of ",
            " was built from another model than ",
            " would travel with every request",
            " GiB with its bank inside",
            "the graph made for a server gives another ",
        ],
    )
    def test_a_message_of_the_page_is_the_program_s(self, message: str) -> None:
        folder = Path(__file__).parents[3] / "export" / "serving"
        texts = [
            node.value
            for file in folder.glob("*.py")
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        assert message.strip() in self.PAGE
        assert any(message in text for text in texts)

    def test_every_parameter_of_a_configuration_is_on_it(self, whole: FoundModel) -> None:
        for name in described(whole.manifest, "model", 1, "0"):
            assert f"`{name}`" in self.PAGE
