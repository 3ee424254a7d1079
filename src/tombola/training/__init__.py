"""Training: how a network learns while its masks hold."""

from tombola.training.classification import Classification
from tombola.training.evolution import Dynamic, Evolution, Gradual
from tombola.training.fit import fit
from tombola.training.graphs import GraphTask
from tombola.training.language import LanguageModelling, Tokens
from tombola.training.recipe import Recipe
from tombola.training.step import Step
from tombola.training.task import Task
from tombola.training.trained import Trained

__all__ = [
    "Classification",
    "Dynamic",
    "Evolution",
    "Gradual",
    "GraphTask",
    "LanguageModelling",
    "Recipe",
    "Step",
    "Task",
    "Tokens",
    "Trained",
    "fit",
]
