"""A lottery study small enough to run in a second a replicate."""

SMALL_STUDY = {
    "name": "small",
    "replicates": 2,
    "data": {"name": "digits"},
    "model": {"widths": [20, 10]},
    "training": {"length": "40it", "evaluate_every": "10it", "learning_rate": "1e-2"},
    "pruning": {"distribution": "rates", "rate": 0.5, "layer_rates": {"output": 0.25}, "target_density": 0.15},
}
"""Three rounds of a small network on digits; a replicate takes about a second."""
