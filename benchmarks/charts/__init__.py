"""Charts of committed results."""
