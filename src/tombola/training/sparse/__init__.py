"""Exact sparse training steps for chains of convolutions and Linear layers, which compute kept weights only."""
