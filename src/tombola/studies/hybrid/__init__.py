"""The hybrid study: random forests on features of a CNN cut at named layers, early exits, tickets beside dense."""
