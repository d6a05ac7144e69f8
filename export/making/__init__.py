"""One class from its pictures or state to its files, whoever asks: a command or a fleet."""
