"""One parent: trained, pruned, fine-tuned, compared in many ways."""
