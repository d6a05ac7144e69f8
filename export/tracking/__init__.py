"""Following a training: nowhere, in Weights & Biases, or in TensorBoard's files."""

from patchline.export.tracking.base import NoTracker, Pictures, Status, Tracker
from patchline.export.tracking.create import create_tracker
from patchline.export.tracking.settings import TrackSettings

__all__ = ["NoTracker", "Pictures", "Status", "TrackSettings", "Tracker", "create_tracker"]
