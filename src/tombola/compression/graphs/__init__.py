"""Convolutional networks on sparse kernels: what they compute as a graph of few kinds of nodes, and how it runs."""
