"""docs/jetson.md quotes messages and options: they are the program's own."""

from __future__ import annotations

import ast
import configparser
import inspect
import re
import shlex
from pathlib import Path

import pytest

from patchline.runtime.cli.build_engine import build_engine
from patchline.runtime.cli.run_camera import run_camera

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")

QUOTED = (
    " is not installed. On a Jetson it comes with JetPack",
    " is too old: Patchline needs ",
    ". Its libraries do not fit this machine",
    "pycuda is not installed",
    "pycuda does not load: ",
    "CUDA does not start here: ",
    ", numbered from 0",
    " was built with ",
    " was cut short or altered: its digest is ",
    ", which it is built from, does not exist",
    " built no plan from ",
    "the GPU has no room for ",
    " refuses ",
    " is not the file that ",
    " holds no memory bank: give one product's with --bank NAME",
    " is not for ",
    "the GPU is lost: ",
)


def texts() -> str:
    """All string constants of the device side, those of f-strings in their parts."""
    files = sorted((ROOT / "runtime").rglob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    return "\0".join(
        node.value for node in nodes if isinstance(node, ast.Constant) and type(node.value) is str
    )


@pytest.fixture(scope="module")
def program() -> str:
    return texts()


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_of_the_page_is_the_programs(message: str, program: str) -> None:
    assert message.strip(" .") in PAGE
    assert message in program


def test_the_service_unit_is_whole_and_its_options_exist() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((ROOT / "docs/patchline@.service").read_text("utf-8").replace("\\\n", " "))
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    command, *words = shlex.split(service["ExecStart"])
    assert command.endswith("/run-camera")
    # What the page and docs/service.md put into its variable becomes a part of the command line.
    (of_board,) = re.findall(r'^PATCHLINE_OPTIONS="(.*)"$', PAGE, re.MULTILINE)
    service_page = (ROOT / "docs/service.md").read_text("utf-8")
    (of_line,) = re.findall(r'^PATCHLINE_OPTIONS="(.*)"$', service_page, re.MULTILINE)
    words += [*shlex.split(of_board), *shlex.split(of_line)]
    given = {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    known = set(inspect.signature(run_camera).parameters) - {"printed"} | {"print"}
    assert given <= known
    assert {"engine", "bank", "headless", "config", "state", "name", "dashboard"} <= given


def test_every_option_is_on_the_page_of_the_command() -> None:
    page = (ROOT / "docs/run-camera.md").read_text("utf-8")
    known = set(inspect.signature(run_camera).parameters) - {"printed"} | {"print"}
    on_page = {word.replace("-", "_") for word in re.findall(r"--([a-z][a-z-]+)", page)}
    assert known <= on_page


def test_the_options_of_build_engine_exist() -> None:
    given = set()
    for line in re.findall(r"^build-engine .*$", PAGE, re.MULTILINE):
        given |= {word.removeprefix("--").replace("-", "_") for word in re.findall(r"--\S+", line)}
    assert given and given <= set(inspect.signature(build_engine).parameters)
