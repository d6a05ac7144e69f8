"""Commands of the device side: each parses, calls and prints."""
