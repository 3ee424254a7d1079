"""From modules to a graph: `torch.fx` says what they call (`symbolic`), `conversions` what nodes that makes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tombola.compression.graphs.builder import Builder
from tombola.compression.graphs.conversions import FUNCTIONS, MODULES
from tombola.compression.graphs.nodes import (
    Graph,
)
from tombola.compression.graphs.symbolic import (
    UnsupportedError,
    traced_steps,
)
from tombola.errors import one_line


def trace(modules: Sequence[tuple[str, nn.Module]], keeps: Mapping[int, Tensor], shape: Sequence[int]) -> Graph:
    """The graph of modules that run one after the other on inputs (n, ...) of `shape`, n included.

    `keeps` are masks by the id of their parameter. Raises UnsupportedError.
    """
    whole = nn.Sequential(OrderedDict((f"site_{number}", module) for number, (_, module) in enumerate(modules)))
    names = {id(module): f"{name}.{own}".strip(".") for name, site in modules for own, module in site.named_modules()}
    try:
        traced = traced_steps(whole, tuple(shape[1:]))
        nodes = Builder(traced, names, keeps, tuple(shape[1:]), MODULES, FUNCTIONS).build()
    except UnsupportedError:
        raise
    except Exception as error:  # what tracing somebody's code may raise is anything
        raise UnsupportedError(one_line(error, 200)) from None
    types = tuple(type(module).__name__ for _, site in modules for module in site.modules())
    return Graph(tuple(name for name, _ in modules), types, tuple(shape[1:]), nodes)
