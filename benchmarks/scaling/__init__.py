"""How time and memory grow with the bank, the picture, the batch and the training set."""
