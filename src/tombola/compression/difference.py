"""How two networks of one kind differ: what each keeps, how far weights moved, and what that does to outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.errors import ModelError, one_line
from tombola.pruning import Masks
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.outputs import main_output
from tombola.pruning.prunable import listed
from tombola.pruning.wrapped import unwrapped

BATCH = 500


@dataclass(frozen=True)
class LayerDifference:
    """A layer of both. What cannot be computed, such as the overlap of two empty masks, is None.

    `overlap` is Jaccard's index of the masks, weights that both keep over those that either keeps, and `by_chance` what
    masks of these densities have that know nothing of each other. `change` is the L2 norm of the difference over that
    of the first, removed weights being 0. `flips` is the fraction of the weights that both keep whose signs differ.
    """

    layer: str
    weights: int
    density_a: float
    density_b: float
    overlap: float | None
    by_chance: float | None
    change: float | None
    flips: float | None


@dataclass(frozen=True)
class OutputDifference:
    """Of the same examples: the largest difference of an output, and the fraction of alike predictions."""

    examples: int
    largest: float
    agreement: float
    accuracy_a: float | None
    accuracy_b: float | None


@dataclass(frozen=True)
class Difference:
    """`layers` one by one, `total` all of them as if they were one, `others` the change of all that is never pruned."""

    layers: tuple[LayerDifference, ...]
    total: LayerDifference
    others: float | None
    outputs: OutputDifference | None


def diff(
    a: nn.Module,
    b: nn.Module,
    masks_a: Masks | None = None,
    masks_b: Masks | None = None,
    inputs: Tensor | None = None,
    targets: Tensor | None = None,
    inputs_b: Tensor | None = None,
) -> Difference:
    """Compares two networks of the same layers, weight by weight and on the same examples.

    Args:
        a: A network; it is not changed.
        b: Another one, whose layers have the same names and shapes.
        masks_a: What `a` keeps; by default everything.
        masks_b: What `b` keeps; by default everything.
        inputs: Examples as `a` takes them; without them outputs are not compared.
        targets: Their classes, for the accuracy of both.
        inputs_b: The same examples as `b` takes them, where it wants them normalised otherwise.

    Returns:
        Difference: layers, their total, and outputs.

    Raises:
        ModelError: where the layers are not the same, and where a network does not take the inputs.
        PruningError: for masks of another network.

    Examples:
        >>> from tombola import prune
        >>> model = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 2))
        >>> found = diff(model, model, prune(model, 0.5), prune(model, 0.8), torch.rand(8, 20))
        >>> found.total.overlap, found.outputs.agreement  # the 20 % are among the 50 %
        (0.4, 1.0)
    """
    a, b = unwrapped(a), unwrapped(b)
    masks_a = (Masks.full(a) if masks_a is None else masks_a.of(a)).cpu()
    masks_b = (Masks.full(b) if masks_b is None else masks_b.of(b)).cpu()
    _refuse_others(masks_a, masks_b)
    weights_a, weights_b = ({n: p.detach().cpu() for n, p in m.named_parameters()} for m in (a, b))
    layers, sums = [], []
    for name, mask in masks_a.items():
        sums.append(_Sums.of(weights_a[name], weights_b[name], mask.keep, masks_b[name].keep))
        layers.append(sums[-1].difference(name))
    total = _Sums(*(sum(column) for column in zip(*(one.parts for one in sums), strict=True))) if sums else _Sums()
    outputs = None if inputs is None else _outputs(a, b, inputs, inputs if inputs_b is None else inputs_b, targets)
    return Difference(tuple(layers), total.difference("all"), _others(a, b, masks_a), outputs)


@dataclass(frozen=True)
class _Sums:
    """What differences of layers are made of, to be added up."""

    weights: float = 0
    kept_a: float = 0
    kept_b: float = 0
    both: float = 0
    chance: float = 0
    squares: float = 0
    moved: float = 0
    flipped: float = 0

    @classmethod
    def of(cls, a: Tensor, b: Tensor, keep_a: Tensor, keep_b: Tensor) -> _Sums:
        first, second, both = torch.where(keep_a, a, 0).double(), torch.where(keep_b, b, 0).double(), keep_a & keep_b
        kept_a, kept_b = int(keep_a.sum()), int(keep_b.sum())
        return cls(
            weights=a.numel(),
            kept_a=kept_a,
            kept_b=kept_b,
            both=int(both.sum()),
            chance=kept_a * kept_b / a.numel() if a.numel() else 0,
            squares=float(first.square().sum()),
            moved=float((second - first).square().sum()),
            flipped=int((first * second < 0).sum()),
        )

    @property
    def parts(self) -> tuple[float, ...]:
        return tuple(vars(self).values())

    def difference(self, name: str) -> LayerDifference:
        change = _ratio(self.moved, self.squares)
        return LayerDifference(
            layer=name,
            weights=int(self.weights),
            density_a=_ratio(self.kept_a, self.weights) or 0.0,
            density_b=_ratio(self.kept_b, self.weights) or 0.0,
            overlap=_ratio(self.both, self.kept_a + self.kept_b - self.both),
            by_chance=_ratio(self.chance, self.kept_a + self.kept_b - self.chance),
            change=None if change is None else change**0.5,
            flips=_ratio(self.flipped, self.both),
        )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _refuse_others(a: Masks, b: Masks) -> None:
    odd = [name for name in {**a, **b} if name not in a or name not in b or a[name].shape != b[name].shape]
    if odd:
        raise ModelError(f"the networks are of different layers: they differ in {listed(odd)}")


def _others(a: nn.Module, b: nn.Module, masks: Masks) -> float | None:
    """The relative change of biases, normalisation and its statistics, all in one."""
    second = b.state_dict()
    squares = moved = 0.0
    for name, tensor in a.state_dict().items():
        if name in masks or not tensor.is_floating_point() or name not in second:
            continue
        if second[name].shape != tensor.shape:
            raise ModelError(f"the networks are of different layers: they differ in {name}")
        first = tensor.detach().cpu().double()
        squares += float(first.square().sum())
        moved += float((second[name].detach().cpu().double() - first).square().sum())
    change = _ratio(moved, squares)
    return None if change is None else change**0.5


def _outputs(
    a: nn.Module, b: nn.Module, inputs_a: Tensor, inputs_b: Tensor, targets: Tensor | None
) -> OutputDifference:
    if not len(inputs_a) or len(inputs_a) != len(inputs_b):
        raise ModelError(f"{len(inputs_a)} and {len(inputs_b)} examples: outputs need the same ones, one at least")
    logits_a, logits_b = torch.cat(list(_answers(a, inputs_a))), torch.cat(list(_answers(b, inputs_b)))
    if logits_a.shape != logits_b.shape:
        raise ModelError(f"the networks give outputs of {tuple(logits_a.shape)} and {tuple(logits_b.shape)}")
    said_a, said_b = logits_a.argmax(-1), logits_b.argmax(-1)
    return OutputDifference(
        examples=len(inputs_a),
        largest=float((logits_a - logits_b).abs().max()),
        agreement=float((said_a == said_b).double().mean()),
        accuracy_a=None if targets is None else float((said_a == targets.cpu()).double().mean()),
        accuracy_b=None if targets is None else float((said_b == targets.cpu()).double().mean()),
    )


def _answers(model: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    device = next((p.device for p in model.parameters()), inputs.device)
    with evaluation_mode(model), torch.no_grad():
        for batch in inputs.split(BATCH):
            try:
                found = main_output(model(batch.to(device)))
            except Exception as error:  # the network's own code
                raise ModelError(f"a network does not take these inputs: {one_line(error)}") from None
            if not isinstance(found, Tensor) or found.dim() < 2:
                raise ModelError("a network gives no outputs of classes for these inputs")
            yield found.cpu()
