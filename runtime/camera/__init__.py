"""Frames from folders, videos, cameras, streams and a generated pattern."""
