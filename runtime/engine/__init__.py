"""Engines that run exported models behind one protocol."""

from patchline.runtime.engine.base import Engine, Prediction
from patchline.runtime.engine.open import open_engine

__all__ = ["Engine", "Prediction", "open_engine"]
