"""Names of layers that are to stay in float, checked before a fit and without a graph.

They come from the weights of convolutions, which the backbone has before it is exported. Whether a
block ends in a sum shows in the graph alone: there a name is checked once more.
"""

from __future__ import annotations

from collections.abc import Sequence

from patchline.export.backbone import convolution_names
from patchline.export.precision.int8 import FIRST, LAST, unknown_layer
from patchline.export.precision.sensitivity import AUTO
from patchline.runtime.errors import ConfigurationError

_NODE = "node_"
"""Begins the name of a node, which stands for a layer whose weights bear no name."""


def check_layer_names(backbone: str, names: Sequence[str]) -> None:
    """Refuse names that no graph of a backbone can have.

    Args:
        backbone: of timm.
        names: layers, or ``first``, ``last``, ``auto``.

    Raises:
        ConfigurationError: there is no such layer (says which there are), or no such backbone.
    """
    wanted = {name for name in names if name not in (AUTO, FIRST, LAST)}
    if not wanted:
        return
    convolutions = convolution_names(backbone)
    sums = {f"{name.rpartition('.')[0]}.add".removeprefix(".") for name in convolutions}
    valid = [*convolutions, *sorted(sums)]
    for name in sorted(wanted.difference(valid)):
        if not name.startswith(_NODE):
            listed = [*convolutions, "and BLOCK.add where a block ends in a sum"]
            raise ConfigurationError(unknown_layer(name, valid, listed))
