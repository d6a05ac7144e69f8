"""Files of safetensors that are the same to the byte whenever their content is (issue 9).

The library writes the texts of the metadata in an order that changes from call to call. The format
is a length of 8 bytes, a header of JSON, and the tensors, whose places count from the header's end.
"""

from __future__ import annotations

import json

_LENGTH_BYTES = 8
_METADATA = "__metadata__"


def with_sorted_metadata(content: bytes) -> bytes:
    """The same file with its metadata first, sorted by name.

    Args:
        content: of a whole file, as ``safetensors.numpy.save`` and its kin give it.
    """
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES:end])
    if _METADATA in header:
        header = {_METADATA: dict(sorted(header.pop(_METADATA).items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # the tensors stay aligned
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[end:]
