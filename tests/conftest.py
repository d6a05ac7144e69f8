"""What every test may rely on."""

from __future__ import annotations

import signal

# A shell's background job (`make test &`) is started with Ctrl-C ignored, and so is every command
# that it starts: no test of an interrupt could pass.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
