"""Reproducible measurements; results are committed under ``benchmarks/results``."""
