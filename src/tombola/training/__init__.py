"""Training: how a network learns while its masks hold."""

from tombola.training.fit import Trained, fit
from tombola.training.recipe import Recipe
from tombola.training.step import Step

__all__ = ["Recipe", "Step", "Trained", "fit"]
