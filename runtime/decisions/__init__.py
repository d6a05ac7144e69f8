"""From verdicts on single frames to what a person or a machine acts on: events, regions, drift."""
