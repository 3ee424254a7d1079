"""What a ticket file holds, in words and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tombola.compression.tickets import blocks, mask_codes
from tombola.compression.tickets.files import TicketFile
from tombola.models.spec import ModelSpec
from tombola.reports.tables import Table

UNITS = {
    **dict.fromkeys(("mask_bytes", "mask_entropy_bytes", "bytes", "dense_bytes", "learned_bytes"), "bytes"),
    "density": "fraction",
}


@dataclass(frozen=True)
class LayerInFile:
    """A layer's mask: its code, the bytes that it takes, and those that no code beats on average."""

    layer: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    density: float
    code: str
    mask_bytes: int
    mask_entropy_bytes: float


def layers_in(file: TicketFile) -> list[LayerInFile]:
    """One entry a layer."""
    sizes = blocks.sizes(file.content)
    return [
        LayerInFile(
            layer=layer.name,
            shape=layer.shape,
            weights=mask.total,
            kept=mask.kept,
            density=mask.density,
            code=str(layer.code),
            mask_bytes=sizes.get(f"mask/{place}", 0),
            mask_entropy_bytes=mask_codes.entropy(mask.total, mask.kept),
        )
        for place, (layer, mask) in enumerate(zip(file.stored.layers, file.masks.values(), strict=True))
    ]


def totals(file: TicketFile) -> dict[str, Any]:
    """Of the whole file, for a program; without what only somebody's own code knows."""
    return {
        "bytes": file.bytes,
        **({} if file.dense_bytes is None else {"dense_bytes": file.dense_bytes}),
        "mask_bytes": file.sizes["masks"],
        "mask_entropy_bytes": file.mask_entropy,
        "learned": None if file.trained is None else str(file.trained.values),
        "learned_bytes": file.sizes["trained"],
        "restart": None if file.start is None else file.start.restart,
        "start_layers_stored": 0 if file.start is None else len(file.start.stored),
        "spec": file.stored.model,
        "history": file.history,
    }


def lines(file: TicketFile) -> list[str]:
    """What the network is, and which weights the file has."""
    spec = file.spec
    name = spec.architecture if isinstance(spec, ModelSpec) else spec.factory
    inputs = "" if spec.input_shape is None else f", inputs {'×'.join(map(str, spec.input_shape))}"
    said = [f"Network: {name}{inputs}, seed {spec.seed}"]
    if file.trained is not None:
        said.append(f"Learned values: {file.trained.values}")
    if (start := file.start) is not None:
        stored = len(start.stored)
        whence = "those of its seed" if not stored else f"{stored} of {len(file.masks)} layers in the file"
        said.append(f"Restarts from: {start.restart}, {whence}")
    if "run" in file.history:
        said.append(f"Run: {file.history['run']}")
    return said


def layers_table(file: TicketFile) -> Table:
    """How each layer's mask is stored."""
    rows = [
        (
            layer.layer.removesuffix(".weight"),
            "×".join(map(str, layer.shape)),
            f"{layer.kept:,}",
            f"{layer.density:.2%}",
            layer.code,
            f"{layer.mask_bytes:,}",
            f"{layer.mask_entropy_bytes:,.0f}",
        )
        for layer in layers_in(file)
    ]
    return Table(("Layer", "Shape", "Kept", "Density", "Mask as", "Bytes", "Entropy"), rows)


def sentence(file: TicketFile) -> str:
    """What the file comes to."""
    dense = file.dense_bytes
    smaller = "" if dense is None else f", {dense / file.bytes:.1f} times smaller than {dense:,} bytes dense"
    mask, bound = file.sizes["masks"], file.mask_entropy
    of_bound = f" ({mask / bound:.1%} of its entropy)" if bound else ""
    return f"{file.path}: {file.bytes:,} bytes{smaller}; of these the mask takes {mask:,}{of_bound}."
