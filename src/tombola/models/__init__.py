"""Models: the zoo, the specification that a model is rebuilt from, and model folders on disk."""

from tombola.models.config import ModelConfig
from tombola.models.factory import FactorySpec
from tombola.models.folder import load_model, read_spec, save_model, weights_form
from tombola.models.mask_files import load_masks, save_masks
from tombola.models.spec import ModelSpec, build
from tombola.models.zoo import Architecture, architectures

__all__ = [
    "Architecture",
    "FactorySpec",
    "ModelConfig",
    "ModelSpec",
    "architectures",
    "build",
    "load_masks",
    "load_model",
    "read_spec",
    "save_masks",
    "save_model",
    "weights_form",
]
