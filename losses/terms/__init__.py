"""Terms that see the whole step: the model, its inputs, other passes."""
