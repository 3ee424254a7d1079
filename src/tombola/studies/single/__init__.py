"""One parent: trained, pruned, fine-tuned, compared over many methods."""
