"""docs/fleet.md and its units: real metrics, real files, and what systemd says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from patchline.runtime.outputs.metrics import MetricsOutput

from .conftest import EXAMPLES, Examples

PAGE = EXAMPLES.parent / "fleet.md"
TEXT = PAGE.read_text(encoding="utf-8")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket",), "gauge": ("",), "stateset": ("",)}


def served() -> set[str]:
    """Names that a scrape has, with those of the process where the system tells them."""
    families = list(MetricsOutput().registry.collect())
    names = {f.name + suffix for f in families for suffix in SUFFIXES.get(f.type, ("",))}
    return names | {"patchline_process_resident_memory_bytes"}


def test_every_metric_that_is_named_is_served() -> None:
    pytest.importorskip("prometheus_client")
    named = set(re.findall(r"\bpatchline_[a-z_]+", TEXT)) - {"patchline_models"}
    assert len(named) >= 10
    assert named <= served()


def test_a_name_that_is_made_up_would_be_seen() -> None:
    pytest.importorskip("prometheus_client")
    assert "patchline_frames_total" in served()
    assert not {"patchline_frames", "patchline_scores_total", "patchline_score_bucket"} & served()


def test_every_file_and_page_that_is_linked_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT)
    assert len(targets) > 10
    assert [target for target in targets if not (PAGE.parent / target).is_file()] == []


def test_every_heading_that_is_linked_is_there() -> None:
    for target, anchor in re.findall(r"\]\(([^)#]+)#([^)]*)\)", TEXT):
        text = (PAGE.parent / target).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in anchors, (target, anchor)


def test_every_option_of_the_pull_is_on_the_page_and_in_the_unit(
    examples: Examples, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["pull_models"]
    monkeypatch.setattr(sys, "argv", ["pull_models.py", "--help"])
    with pytest.raises(SystemExit):
        module.main()
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert {f for f in options if f"`{f}" not in TEXT} == set()
    unit = (EXAMPLES / "patchline-pull@.service").read_text(encoding="utf-8")
    assert set(re.findall(r" (--[a-z-]+)", unit)) - {"--ca"} <= options
    assert "--root" in unit and "pull_models.py" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for kind in ("service", "timer"):
        text = (EXAMPLES / f"patchline-pull@.{kind}").read_text(encoding="utf-8")
        unit = tmp_path / f"patchline-pull@.{kind}"
        unit.write_text(text.replace("/opt/patchline/bin/python", sys.executable))
        (tmp_path / f"patchline-pull@press3.{kind}").symlink_to(unit.name)
    names = [str(tmp_path / f"patchline-pull@press3.{kind}") for kind in ("service", "timer")]
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
