"""What a person chooses of a model: one of the zoo, or a function of their own that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from tombola.models.factory import PATTERN, FactorySpec
from tombola.models.spec import ModelSpec, Network, Normalisation

Spec = ModelSpec | FactorySpec


class ModelConfig(Network):
    """A model of a config; the data add input shape and classes."""

    factory: str | None = Field(
        None,
        pattern=f"^{PATTERN}$",
        description="your own function that makes the network, as package.module:function, in place of all else here",
    )

    @model_validator(mode="after")
    def _one_or_the_other(self) -> ModelConfig:
        """A config that was written out in full and read back says the same, so defaults are allowed beside."""
        chosen = [name for name in Network.model_fields if getattr(self, name) != Network.model_fields[name].default]
        if self.factory is not None and chosen:
            raise ValueError(f"`factory` makes the whole network: leave {', '.join(chosen)} out")
        return self

    @property
    def title(self) -> str:
        """What pages call the network."""
        return self.factory or self.architecture

    def spec(
        self,
        input_shape: Sequence[int] | None,
        classes: int | None,
        seed: int,
        normalisation: Normalisation | None = None,
    ) -> Spec:
        """The specification of this network for such data, its initial weights from `seed`.

        Without `input_shape` and `classes` that of somebody's own network for a task that is no classification.
        """
        given: dict[str, Any] = {
            "input_shape": None if input_shape is None else tuple(input_shape),
            "classes": classes,
            "seed": seed,
            "normalisation": normalisation or Normalisation(),
        }
        if self.factory is not None:
            return FactorySpec(factory=self.factory, **given)
        return ModelSpec(**self.model_dump(exclude={"factory"}), **given)
