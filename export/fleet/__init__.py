"""Many classes in one call of ``export-model``, one after another or on a Ray cluster (issue 9)."""
