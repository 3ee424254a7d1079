"""Causal language models of transformers: their heads and neurons, named, masked, gated, watched and read from disk."""
