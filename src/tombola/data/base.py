"""The frozen base that examples may pass before they are learned from: what a config says of it.

Only its description is here: computing features takes a network, see `tombola.training.frozen`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from tombola.runs.configs import Config, Device


class Base(Config):
    """A network whose weights stay as they are. It runs once, up to `layer`; what it gives is learned from."""

    weights: str | None = Field(
        None,
        description="a model folder of tombola train, or VGG16's weights as .pth, .h5, .keras or .safetensors; "
        "`torchvision` or `keras` for ImageNet's, downloaded once; without weights they are random",
    )
    layer: str = Field("block5_pool", description="its last layer that is used")
    preprocessing: Literal["keras", "torchvision", "none"] | None = Field(
        None,
        description="how images were prepared for the weights, where their file does not say: `keras` bytes, blue "
        "first, less ImageNet's mean; `torchvision` by ImageNet's mean and deviation; `none` in [0, 1] and no more",
    )
    sha256: str | None = Field(None, description="the checksum that the file of weights must have")
    device: Device = Field("cpu", description="where it runs; auto is the best that there is")
    widths: tuple[PositiveInt, ...] = Field((), description="of random weights: channels of VGG16's five blocks")

    @field_validator("sha256")
    @classmethod
    def _is_a_checksum(cls, sha256: str | None) -> str | None:
        if sha256 is not None and (len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef")):
            raise ValueError("a SHA-256 has 64 digits from 0 to f")
        return sha256 and sha256.lower()

    @model_validator(mode="after")
    def _goes_together(self) -> Base:
        if self.widths and (self.weights is not None or len(self.widths) != 5):
            raise ValueError("`widths` are the channels of the five blocks of random weights; weights bring their own")
        if self.weights is None and (self.sha256 or self.preprocessing):
            raise ValueError("`sha256` and `preprocessing` belong to a file of weights, and none is named")
        return self
