"""Modules that do nothing in evaluation."""

from __future__ import annotations

from torch import nn

NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
