"""Videos to training features: what `moda extract` does."""
