"""How well an exported model does on labelled pictures: metrics, and the report people look at.

Runs the exported file through :mod:`patchline.runtime.engine`, never the torch module; nothing in
here imports torch, so that it also runs on a device.
"""
