"""Exact sparse training steps for chains of Linear and ReLU layers: only kept weights are computed and updated."""
