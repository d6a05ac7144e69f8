"""A Ray cluster: how it is found, and what each of its nodes must have (issue 9)."""
