"""What every test may rely on."""

from __future__ import annotations

import os
import signal

# Two test processes on two cores, and models so small that a second thread costs more than it
# saves: of NumPy, PyTorch and SciPy here, and in the programs that tests start. It comes before
# any of them is imported. ONNX Runtime has threads of its own and does not heed it.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# A shell's background job (`make test &`) is started with Ctrl-C ignored, one under `nohup` with
# SIGHUP ignored, and so is every command that it starts: no test of these signals could pass.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _usual)
