"""What a call of ``export-model`` asks for, once its options are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchline.export.cli.export_options import RayOptions
from patchline.export.cli.serving_options import Serving
from patchline.export.making.output import Output


@dataclass(frozen=True)
class Call:
    """What a call asks for.

    Attributes:
        names: of classes; ``all`` among them stands for every one.
        data: folder of the classes.
        fields: of the settings that were given.
        config: file to name in messages about them.
        output: where to.
        is_again: whether ``all`` makes those, too, that are up to date.
        ray: the cluster; ``None`` for this process.
        serving: the server that gets the models; ``None`` for none.
    """

    names: list[str]
    data: Path
    fields: dict[str, Any]
    config: Path | None
    output: Output
    is_again: bool = False
    ray: RayOptions | None = None
    serving: Serving | None = None
