"""Every error Patchline raises on purpose.

::

    PatchlineError                 any of the below; a command prints it as one sentence and exits 1
    ├── ConfigurationError         a value that cannot be: ratio 0, unknown score, clashing options
    ├── DataError                  the pictures
    │   ├── ClassNotFoundError     no such class folder (says which exist)
    │   └── ImageReadError         one file is missing, truncated or not a picture
    ├── FrameError                 an array that is no camera frame, or not of the model's size
    ├── WeightsError               backbone weights that cannot be had or do not fit
    ├── TrainingError              a training that cannot go on: NaN loss, no memory, its checkpoint
    ├── ModelError                 the files of an exported model
    │   ├── ManifestError          manifest missing, edited, of a newer version (names the field)
    │   ├── ParityError            the exported file does not compute what was fitted
    │   └── GateError              a converted model judges otherwise than the float32 one
    ├── EngineError                an engine that cannot be opened or run
    │   ├── BuildError             TensorRT makes no plan from a model
    │   ├── DeviceLostError        the GPU's context is gone; a new engine may run again
    │   └── MissingExtraError      an optional package is not installed (gives the pip command)
    ├── SourceError                a camera, stream, video or folder
    │   └── SourceOpenError        it does not open
    ├── ClusterError               a Ray cluster that does not answer, or whose nodes do not fit
    └── WriteError                 a file that cannot be written (disk full, no permission)

Messages say what was found, what was expected and what to do (DESIGN section 6).
"""

from __future__ import annotations


class PatchlineError(Exception):
    """Base of every error raised on purpose."""


class ConfigurationError(PatchlineError, ValueError):
    """A setting outside its range, an unknown name, or options that contradict each other."""


class DataError(PatchlineError):
    """The pictures are not what the task needs."""


class ClassNotFoundError(DataError):
    """The data folder holds no such class."""


class ImageReadError(DataError):
    """One picture file cannot be read whole."""


class FrameError(PatchlineError, ValueError):
    """An array that is not a camera frame, or frames that do not fit the model."""


class WeightsError(PatchlineError):
    """Backbone weights could not be loaded, or do not fit the backbone."""


class TrainingError(PatchlineError):
    """A training that cannot go on: a loss that is no number, no memory, an unfit checkpoint."""


class ModelError(PatchlineError):
    """The files of an exported model are missing, damaged or contradict each other."""


class ManifestError(ModelError):
    """The manifest is missing, edited or of another version; the message names the field."""


class ParityError(ModelError):
    """The exported file does not compute what the fitted module computes."""


class GateError(ModelError):
    """A model of lower precision judges otherwise than the float32 one, past the limits."""


class EngineError(PatchlineError):
    """An engine cannot be opened or run."""


class BuildError(EngineError):
    """TensorRT makes no plan from a model; the message says why and what to try."""


class DeviceLostError(EngineError):
    """The GPU's context is gone or broken for good; close the engine and open a new one."""


class MissingExtraError(EngineError):
    """An optional package is missing; the message holds the exact install command."""


class SourceError(PatchlineError):
    """A camera, stream, video or folder failed while it was read."""


class SourceOpenError(SourceError):
    """A camera, stream, video or folder does not open."""


class ClusterError(PatchlineError):
    """A Ray cluster does not answer, or one of its nodes is not set up as this machine is."""


class WriteError(PatchlineError):
    """A file or folder could not be written; what was there before is untouched."""
