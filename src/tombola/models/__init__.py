"""Models: the zoo, the specification that a model is rebuilt from, and model folders on disk."""

from tombola.models.config import ModelConfig
from tombola.models.factory import FactorySpec
from tombola.models.folder import load_model, read_spec, save_model
from tombola.models.spec import ModelSpec, build
from tombola.models.zoo import Architecture, architectures

__all__ = [
    "Architecture",
    "FactorySpec",
    "ModelConfig",
    "ModelSpec",
    "architectures",
    "build",
    "load_model",
    "read_spec",
    "save_model",
]
