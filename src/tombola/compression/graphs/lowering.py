"""From a graph to machine code: example by example as images, or many examples at a time as panels."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.compression.compiled import Compiled, Operation, segments_of
from tombola.compression.graphs.by_image import Images
from tombola.compression.graphs.by_panel import Panels
from tombola.compression.graphs.lowered import PackedGraph
from tombola.compression.plans import Choice, Form, Plan


def lower(weights: PackedGraph, plan: Plan, rows: int) -> Compiled:
    """The plan for `rows` examples: at most a panel of them where it goes by panels. Not for plans on torch."""
    if plan.form == Form.PANELS:
        whole = Panels(weights, plan.choices, rows)
        return Compiled(segments_of(whole.steps, whole.workspace), whole.workspace)
    steps: list[Operation] = []
    workspace = 0
    for row in range(rows):
        one = Images(weights, plan.choices, row)
        steps += one.steps
        workspace = one.workspace
    return Compiled(segments_of(steps, workspace), workspace)


@dataclass(frozen=True)
class Bare:
    """A graph of one node between values as they lie inside a larger one, to be measured: floats of input, output."""

    compiled: Compiled
    input: int
    output: int


def lower_bare(weights: PackedGraph, choice: Choice, form: Form, rows: int) -> Bare:
    """One node for one example or a panel of `rows`, without the conversions at the ends."""
    own = Panels(weights, [choice], rows, True) if form == Form.PANELS else Images(weights, [choice], 0, True)
    compiled = Compiled(segments_of(own.steps, own.workspace), own.workspace)
    return Bare(compiled, own.layouts[0].size + 2 * own.slack, own.layouts[-1].size)
