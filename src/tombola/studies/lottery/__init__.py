"""The lottery study: iterative pruning, rewinding, controls and a verdict (Frankle & Carbin 2019)."""
