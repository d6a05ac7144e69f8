"""Commands of the workstation side: each parses, calls and prints."""
