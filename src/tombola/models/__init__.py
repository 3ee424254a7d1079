"""Models: the zoo, the specification that a model is rebuilt from, and model folders on disk."""

from tombola.models.folder import load_model, save_model
from tombola.models.spec import ModelConfig, ModelSpec, build
from tombola.models.zoo import Architecture, architectures

__all__ = ["Architecture", "ModelConfig", "ModelSpec", "architectures", "build", "load_model", "save_model"]
