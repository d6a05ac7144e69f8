"""Files of safetensors with the same content are the same to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from patchline.runtime.same_bytes import with_sorted_metadata

TENSORS = {
    "long": np.arange(6, dtype=np.int64).reshape(2, 3),
    "b": np.linspace(0, 1, 5, dtype=np.float32),
    "a": np.array([3], np.uint8),
}
METADATA = {f"name {number}": f'ünd „{number}“\n"{{}}' for number in range(12)}


def test_the_same_bytes_and_the_same_content(tmp_path: Path) -> None:
    # The library's own order is another one in most of so many calls.
    contents = [safetensors.numpy.save(TENSORS, METADATA) for _ in range(20)]
    assert len(set(contents)) > 1
    (content,) = {with_sorted_metadata(content) for content in contents}
    assert with_sorted_metadata(content) == content
    file = tmp_path / "file.safetensors"
    file.write_bytes(content)
    with safetensors.safe_open(file, framework="np") as opened:
        assert opened.metadata() == METADATA
    loaded = safetensors.numpy.load(content)
    assert set(loaded) == set(TENSORS)
    for name, array in loaded.items():
        assert array.dtype == TENSORS[name].dtype
        assert np.array_equal(array, TENSORS[name])
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0


def test_a_file_without_metadata() -> None:
    content = with_sorted_metadata(safetensors.numpy.save(TENSORS))
    assert np.array_equal(safetensors.numpy.load(content)["b"], TENSORS["b"])
