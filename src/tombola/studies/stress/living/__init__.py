"""A network of the study at work: pruned, taught, looked at."""
