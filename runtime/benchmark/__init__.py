"""How fast an engine is: latency, its phases, throughput, two engines against each other."""
