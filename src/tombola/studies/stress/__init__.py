"""The stress study: how pruned language models keep learning when their tasks change."""
