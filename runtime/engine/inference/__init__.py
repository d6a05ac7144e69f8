"""A plan at work: contexts, slots in flight, the product's bank on the GPU."""
