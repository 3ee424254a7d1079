"""A hybrid study small enough to run in seconds, on images that are drawn for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 32
PER_CLASS = 45
EXITS = ["block1_conv1", "block3_conv2"]
FEATURES = ["gap", "grid"]

TRAINING = {"optimizer": "adam", "learning_rate": "1e-2", "batch_size": 16, "length": "8it", "evaluate_every": "4it"}
PRUNING = {"densities": [0.6, 0.3]}
ELSEWHERE = {"name": "digits"}
"""The data of lotteries, whose place the study's own take."""


def lottery(name: str, model: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The config of a lottery."""
    content = {"name": name, "data": ELSEWHERE, "model": model, "training": TRAINING, "pruning": PRUNING}
    return {**content, "controls": ["random"], **changes}


def hybrid_study(images: Path, **changes: Any) -> dict[str, Any]:
    """The config of a study of two replicates, on the images of a folder; `None` leaves a key out."""
    base = {"widths": [2, 2, 3, 3, 3]}
    vgg = {"architecture": "vgg11", "widths": [3, 4, 4, 4, 4], "initialisation": "kaiming-normal"}
    content = {
        "study": "hybrid",
        "name": "small",
        "data": {"name": "folder", "folder": str(images), "validation": 20, "test": 25},
        "replicates": 2,
        "cnn": lottery("small-cnn", vgg),
        "head": lottery("small-head", {"architecture": "head", "widths": [6, 4]}, data={**ELSEWHERE, "base": base}),
        "lenet": lottery("small-lenet", {"architecture": "lenet5"}),
        "exits": EXITS,
        "features": FEATURES,
        "trees": 5,
        "components": 6,
        "gate_exit": "block3_conv2",
    }
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


def draw_images(folder: Path) -> Path:
    """Two classes of grey noise, one of them with a bright square somewhere; no two images are the same."""
    rng = np.random.default_rng(0)
    for label in ("plain", "square"):
        (folder / label).mkdir(parents=True)
        for number in range(PER_CLASS):
            image = rng.integers(0, 150, (SIZE, SIZE), dtype=np.uint8)
            if label == "square":
                top, left = rng.integers(0, SIZE - 12, 2)
                image[top : top + 12, left : left + 12] += 100
            Image.fromarray(image).save(folder / label / f"{number:03d}.png")
    return folder
