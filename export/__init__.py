"""PyTorch side: fit a memory bank on good pictures and export it as one ONNX file."""
