"""Archives of pictures scored into a Parquet dataset, part by part (issue 9)."""
