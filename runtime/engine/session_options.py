"""What every session of ONNX Runtime is opened with, in a fit, a check and on the line."""

from __future__ import annotations

from typing import Any

_FATAL = 4  # an error that it logs is one that it raises as well

_EXACT_INT8 = "session.x64quantprecision"
"""Without it, an x86 processor that has no VNNI adds pairs of 8-bit products up in 16 bits, which
overflow without a word: image scores were off by up to a fifth (AVX2, ONNX Runtime 1.32). It has no
effect on other processors, and none on models in floating point."""


def session_options(runtime: Any) -> Any:
    """Options of a session that logs nothing and computes INT8 exactly.

    Args:
        runtime: the module ``onnxruntime``.
    """
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL
    options.add_session_config_entry(_EXACT_INT8, "1")
    return options
