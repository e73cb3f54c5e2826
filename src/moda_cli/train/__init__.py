"""`moda train`: from a feature folder to a model directory."""
