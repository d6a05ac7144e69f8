"""Commands that find numbers from normal pictures: each parses, calls and prints."""
