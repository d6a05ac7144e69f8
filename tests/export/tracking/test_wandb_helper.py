"""W&B's helper may hang: the end of a process does not wait for it for ever."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import atexit, subprocess, sys
from types import SimpleNamespace as N
from patchline.export.tracking.wandb_helper import limit_exit

helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
connection = N(_proc=N(_process=helper)) if sys.argv[1] == "known" else None
sys.modules["wandb"] = N(sdk=N(wandb_setup=N(_singleton=N(_connection=connection))))

def wait_for_helper():
    try:
        print(helper.wait(3 if connection is None else 90))
    except subprocess.TimeoutExpired:
        print("still there")
        helper.kill()
        helper.wait()

atexit.register(wait_for_helper)
limit_exit(0.5)
print(helper.poll())
"""


def output(argument: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_helper_is_ended_after_the_main_thread() -> None:
    assert output("known") == ["None", "-9"]


def test_where_it_is_kept_elsewhere_nothing_is_ended() -> None:
    assert output("elsewhere") == ["None", "still there"]
