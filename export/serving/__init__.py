"""Models as inference servers take them: Triton Inference Server and DeepStream (issue 9)."""
