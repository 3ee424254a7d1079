"""Training: how a network learns while its masks hold."""

from tombola.training.evolution import Dynamic, Evolution, Gradual
from tombola.training.fit import fit
from tombola.training.recipe import Recipe
from tombola.training.step import Step
from tombola.training.trained import Trained

__all__ = ["Dynamic", "Evolution", "Gradual", "Recipe", "Step", "Trained", "fit"]
