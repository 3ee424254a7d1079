"""Compression: what a pruned model costs, and the files that carry a ticket elsewhere."""
