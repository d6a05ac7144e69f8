"""Plans on disk: what they were built from, whether they fit, building under a lock."""
