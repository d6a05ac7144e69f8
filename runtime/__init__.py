"""The device side and the ground floor: contract, preprocessing, engines, the camera loop.

Nothing here imports torch, timm, onnx or anything of ``patchline.export`` (DESIGN section 1).
"""
