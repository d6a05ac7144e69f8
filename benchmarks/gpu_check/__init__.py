"""Proof on a GPU: what exported models compute there, how fast, and whether memory grows."""
