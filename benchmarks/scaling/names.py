"""What parts and quantities are called in arguments and results."""

from __future__ import annotations

FRAME, SEARCH, BATCH = "frame", "search", "batch"
FEATURES, CORESET, CROSS_FIT, FIT = "features", "coreset", "cross-fit", "fit"

PEAK = "peak"
"""The memory of a series among its laws."""
