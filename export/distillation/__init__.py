"""Reverse distillation (Deng & Li, CVPR 2022): the second method."""
