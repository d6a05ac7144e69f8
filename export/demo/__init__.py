"""Drawn pictures and a walk through the whole line with them."""
