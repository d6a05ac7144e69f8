"""What every test may rely on."""

from __future__ import annotations

import signal

# A shell's background job (`make test &`) is started with Ctrl-C ignored, one under `nohup` with
# SIGHUP ignored, and so is every command that it starts: no test of these signals could pass.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _usual)
