"""CUDA through pycuda: the GPU, its streams and memory, graphs, and their release."""
