"""What is done with a verdict: overlay pictures, videos, JSON lines."""
