"""Settings under a name: files for ``export-model --config`` (issue 8)."""
