"""Draws the guide's figures: what each structure removes, where distributions put a target, how schedules lead to it.

    python docs/guide/draw_structures.py [FOLDER]

Everything drawn was computed by `prune`, with the registered structures, distributions and schedules; the same seeds
give the same files. `make guide-figures` writes docs/images.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn

from tombola import prune
from tombola.models import ModelSpec, build
from tombola.pruning import schedules
from tombola.reports.nature import BASELINE, COLOURS, DASHES, MARKERS

KEPT, REMOVED = COLOURS[0], COLOURS[1]
SHADES = LinearSegmentedColormap.from_list("shades", ["#F4F8FB", KEPT])
INK = "#333333"
DPI = 120


@dataclass(frozen=True)
class Drawing:
    """What one figure shows: a layer, a structure, and the boxes that the layer's matrix falls into.

    `box` is the size, in cells, of what a thick line goes round. `kernel` cells of a convolution are drawn as a
    square of its own. `scored` says where a unit's mean score is written: at its row, its column, its box or nowhere.
    """

    file: str
    structure: str
    layer: Callable[[], nn.Module]
    title: str
    box: tuple[int, int]
    rows: str = "outputs"
    columns: str = "inputs"
    scored: str = ""


DRAWINGS = (
    Drawing("weight", "weight", lambda: nn.Linear(12, 6), "weight: single weights, anywhere", (6, 12)),
    Drawing(
        "neuron", "neuron", lambda: nn.Linear(12, 6), "neuron: a Linear layer's whole outputs", (1, 12), scored="row"
    ),
    Drawing(
        *("filter", "filter", lambda: nn.Conv2d(6, 4, 3), "filter: a convolution's whole output channels", (3, 18)),
        *("output channels", "input channels", "row"),
    ),
    Drawing(
        *("channel", "channel", lambda: nn.Conv2d(6, 4, 3), "channel: a convolution's whole input channels", (12, 3)),
        *("output channels", "input channels", "column"),
    ),
    Drawing("block", "block:2x4", lambda: nn.Linear(16, 8), "block:2x4: 2 outputs × 4 inputs", (2, 4), scored="box"),
    Drawing("n-of-m", "2:4", lambda: nn.Linear(16, 8), "2:4: two of every four along the inputs", (1, 4)),
)


def main(folder: Path) -> None:
    """Writes every figure into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for drawing in DRAWINGS:
        _save(_structure(drawing), folder / f"structure-{drawing.file}.png")
    _save(_distributions(), folder / "guide-distributions.png")
    _save(_schedules(), folder / "guide-schedules.png")


def _structure(drawing: Drawing) -> Figure:
    torch.manual_seed(8)
    layer = drawing.layer()
    with torch.no_grad():  # some outputs and inputs matter less than others, as after training
        for axis in (0, 1):
            sizes = [layer.weight.shape[axis] if other == axis else 1 for other in range(layer.weight.dim())]
            layer.weight.mul_(0.4 + torch.rand(sizes))
    sparsity = None if drawing.structure == "2:4" else 0.5
    (keep,) = prune(layer, sparsity, structure=drawing.structure).to_tensors().values()
    sizes, kept = _as_matrix(layer.weight.detach().abs()), _as_matrix(keep)
    figure = Figure(figsize=(6.4, 6.4 * _aspect(sizes) / 2 + 0.62), layout="constrained")
    figure.suptitle(drawing.title, fontsize=9, color=INK)
    before, after = figure.subplots(1, 2)
    kernel = layer.kernel_size[0] if isinstance(layer, nn.Conv2d) else 1
    before.imshow(sizes, cmap=SHADES, vmin=0)
    _scores(before, sizes, drawing)
    blank = torch.ones(*kept.shape, 3)
    blank[kept] = torch.tensor(to_rgb(KEPT))
    after.imshow(blank)
    gone = (~kept).nonzero()
    after.scatter(gone[:, 1], gone[:, 0], s=11, marker="x", color=REMOVED, linewidths=0.9)
    removed = f"{int((~kept).sum())} of {kept.numel()} weights removed (×)"
    for axes, below in (
        (before, f"before: darker is larger |w|{'; number: mean of |w|' if drawing.scored else ''}"),
        (after, f"after: {removed}"),
    ):
        _grid(axes, kept.shape, (1, 1), "#BBBBBB", 0.4)
        _grid(axes, kept.shape, (kernel, kernel), INK, 0.7 if kernel > 1 else 0)
        _grid(axes, kept.shape, drawing.box, INK, 1.6)
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(f"{drawing.columns} →\n{below}", fontsize=7.5, color=INK)
        axes.spines[:].set_visible(False)
    before.set_ylabel(f"← {drawing.rows}", fontsize=7.5, color=INK)
    return figure


def _as_matrix(weight: Tensor) -> Tensor:
    """A Linear weight as it is; a convolution's with its kernels laid out as tiles, outputs down, inputs across."""
    if weight.dim() == 2:
        return weight
    outputs, inputs, height, width = weight.shape
    return weight.permute(0, 2, 1, 3).reshape(outputs * height, inputs * width)


def _aspect(matrix: Tensor) -> float:
    return matrix.shape[0] / matrix.shape[1]


def _grid(axes: Axes, shape: torch.Size, box: tuple[int, int], colour: str, width: float) -> None:
    if not width:
        return
    for top in range(0, shape[0], box[0]):
        for left in range(0, shape[1], box[1]):
            corner = (left - 0.5, top - 0.5)
            axes.add_patch(
                Rectangle(corner, box[1], box[0], fill=False, edgecolor=colour, linewidth=width, clip_on=False)
            )


def _scores(axes: Axes, sizes: Tensor, drawing: Drawing) -> None:
    """The mean of |w| over each unit, which is its score, written beside or into it."""
    down, across = drawing.box
    for top in range(0, sizes.shape[0], down) if drawing.scored else ():
        for left in range(0, sizes.shape[1], across):
            mean = f"{float(sizes[top : top + down, left : left + across].mean()):.3f}"
            middle = (left + across / 2 - 0.5, top + down / 2 - 0.5)
            place = {"row": (sizes.shape[1] - 0.3, middle[1]), "column": (middle[0], -0.8), "box": middle}
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 1} if drawing.scored == "box" else None
            align = {"row": ("left", "center"), "column": ("center", "bottom"), "box": ("center", "center")}
            across_to, up_to = align[drawing.scored]
            axes.text(*place[drawing.scored], mean, fontsize=7, color=INK, ha=across_to, va=up_to, bbox=ground)


def _distributions() -> Figure:
    """LeNet-5 as it is initialised, a tenth of its weights kept."""
    model = build(ModelSpec(architecture="lenet5", input_shape=(1, 28, 28), classes=10, seed=0))
    names = ("global", "uniform", "erk", "rates:0.9,output=0.5")
    figure, axes = _axes("Weights kept (%)")
    for index, name in enumerate(names):
        masks = prune(model, None if name.startswith("rates") else 0.9, distribution=name)
        table = masks.table()
        places = [layer + (index - (len(names) - 1) / 2) * 0.2 for layer in range(len(table))]
        label = f"{name}: {masks.density:.1%} of all"
        bars = axes.bar(places, [100 * layer.density for layer in table], 0.18, color=COLOURS[index], label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=6, color=INK, padding=1)
    axes.set_xticks(range(len(table)), [f"{layer.name[:-7]}\n{layer.total:,}" for layer in table], fontsize=7)
    axes.set_ylim(0, 108)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _schedules() -> Figure:
    figure, axes = _axes("Sparsity (%)")
    rounds = 10
    for index, name in enumerate(schedules):
        values = [0.0, *schedules.get(name)(0.9, rounds)]
        dash = (0, DASHES[index]) if DASHES[index] else "solid"
        style = {"color": COLOURS[index], "marker": MARKERS[index], "linestyle": dash}
        axes.plot(
            range(rounds + 1), [100 * value for value in values], **style, markersize=4, linewidth=1.2, label=name
        )
    axes.axhline(90, color=BASELINE, linewidth=0.6, zorder=0)
    axes.set_xlabel("After round", fontsize=8)
    axes.set_xticks(range(rounds + 1))
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    return figure


def _axes(y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 2.7), layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    """A file of few colours is a small file."""
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI)
    Image.open(content).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "images")
