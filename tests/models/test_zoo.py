"""Every architecture is the one it is named after: layers, shapes, counts; and it prunes, trains and is rebuilt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tombola.compression.cost import count_flops
from tombola.data import DataConfig, DataSet, Examples, load_data
from tombola.errors import ConfigError, ModelError
from tombola.models import ModelConfig, ModelSpec, architectures, build, save_model
from tombola.models.tensors import content_sha256
from tombola.pruning import Mask, Masks, prunable_parameters, prune
from tombola.runs.configs import load_config, validate
from tombola.runs.shipped import config_path
from tombola.training import Recipe, fit
from tombola.training.trained import Evaluation
from tombola.training.training import Training

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
SMALL = (1, 32, 32)
"""What `narrow` takes; a VGG halves it five times."""
NARROW = {
    "lenet-300-100": (12, 8),
    "lenet5": (3, 4, 12, 8),
    "lenet5-caffe": (4, 5, 10),
    "conv2": (4, 5, 12, 8),
    "conv4": (4, 4, 5, 5, 12, 8),
    "conv6": (4, 4, 5, 5, 6, 6, 12, 8),
    "head": (12, 8),
    "resnet20": (4, 5, 8),
    "vgg16-keras": (4, 4, 5, 5, 6, 12, 8),
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), (6, 6, 7, 8, 8)),
}
"""Networks that train in a moment; a new architecture wants its line here."""


def spec_of(architecture: str, shape: tuple[int, ...] = CIFAR, **fields: object) -> ModelSpec:
    content = {"architecture": architecture, "input_shape": shape, "classes": 10, "seed": 3, **fields}
    return validate(content, ModelSpec, "test")


def narrow(architecture: str, shape: tuple[int, ...] = SMALL, seed: int = 3) -> ModelSpec:
    return spec_of(architecture, shape, widths=NARROW[architecture], seed=seed)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    """Digits of the shape `SMALL`."""
    small = load_data(DataConfig(name="digits"), seed=0)

    def enlarge(part: Examples, count: int) -> Examples:
        inputs = part.inputs[:count].repeat_interleave(4, 2).repeat_interleave(4, 3)
        return Examples(inputs, part.targets[:count])

    parts = enlarge(small.train, 300), enlarge(small.validation, 60), enlarge(small.test, 60)
    return DataSet("digits", *parts, small.classes, small.checksum)


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("lenet5", ["conv_1", "conv_2", "dense_1", "dense_2", "output"]),
        ("lenet5-caffe", ["conv_1", "conv_2", "dense_1", "output"]),
        ("conv2", ["conv_1", "conv_2", "dense_1", "dense_2", "output"]),
        ("conv4", ["conv_1", "conv_2", "conv_3", "conv_4", "dense_1", "dense_2", "output"]),
        ("conv6", ["conv_1", "conv_2", "conv_3", "conv_4", "conv_5", "conv_6", "dense_1", "dense_2", "output"]),
        (
            "resnet20",
            [
                "conv_1",
                *(f"stage_{s}.block_{b}.conv_{c}" for s in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2)),
                "output",
            ],
        ),
        *(
            (f"vgg{depth}", [*(f"conv_{number}" for number in range(1, depth - 2)), "output"])
            for depth in (11, 13, 16, 19)  # the paper counts three dense layers
        ),
    ],
)
def test_layers_have_their_names(architecture: str, layers: list[str]) -> None:
    model = build(narrow(architecture))
    assert list(prunable_parameters(model)) == [f"{layer}.weight" for layer in layers]


# The papers' own numbers, and the sums that they come from.
WEIGHTS = [
    ("lenet-300-100", MNIST, 784 * 300 + 300 * 100 + 100 * 10, 266_200),  # "266K"
    ("lenet5", (1, 32, 32), 25 * 6 + 25 * 6 * 16 + 400 * 120 + 120 * 84 + 84 * 10, 61_470),
    ("lenet5-caffe", MNIST, 25 * 20 + 25 * 20 * 50 + 800 * 500 + 500 * 10, 430_500),  # Han et al.: 431K with biases
    ("conv2", CIFAR, 9 * (3 * 64 + 64 * 64) + 16 * 16 * 64 * 256 + 256 * 256 + 2560, 4_300_992),  # "4.3M"
    ("conv4", CIFAR, 9 * (3 + 64 + 128 + 256) * 64 + 8 * 8 * 128 * 256 + 256 * 256 + 2560, 2_425_024),  # "2.4M"
    ("conv6", CIFAR, 9 * (3 + 64 + 128 + 256 + 512 + 1024) * 64 + 16 * 256 * 256 + 256 * 256 + 2560, 2_261_184),
    ("resnet20", CIFAR, 9 * (48 + 6 * 256 + 512 + 5 * 1024 + 2048 + 5 * 4096) + 640, 268_336),  # "0.27M"
    # Convolutions after the first, in units of 64 × 64 channels; then 512 × 10 of the output.
    ("vgg11", CIFAR, 9 * (192 + 4096 * (2 + 8 + 16 + 32 + 3 * 64)) + 5120, 9_222_848),
    ("vgg13", CIFAR, 9 * (192 + 4096 * (1 + 2 + 4 + 8 + 16 + 32 + 3 * 64)) + 5120, 9_407_168),
    ("vgg16", CIFAR, 9 * (192 + 4096 * (1 + 2 + 4 + 8 + 2 * 16 + 32 + 5 * 64)) + 5120, 14_715_584),  # "14.7M"
    ("vgg19", CIFAR, 9 * (192 + 4096 * (1 + 2 + 4 + 8 + 3 * 16 + 32 + 7 * 64)) + 5120, 20_024_000),  # "20.0M"
]


@pytest.mark.parametrize(("architecture", "shape", "by_hand", "published"), WEIGHTS)
def test_weights_are_as_many_as_published(
    architecture: str, shape: tuple[int, ...], by_hand: int, published: int
) -> None:
    masks = Masks.full(build(spec_of(architecture, shape)))
    assert masks.total == by_hand == published


@pytest.mark.parametrize(
    ("architecture", "convolutional"), [("conv2", 38_592), ("conv4", 259_776), ("conv6", 1_144_512)]
)
def test_convolutions_of_the_conv_networks_hold_the_papers_share(architecture: str, convolutional: int) -> None:
    """Figure 2 of Frankle & Carbin 2019 gives 38K, 260K and 1.1M."""
    masks = Masks.full(build(spec_of(architecture)))
    assert sum(mask.total for name, mask in masks.items() if name.startswith("conv")) == convolutional


def test_resnet20_has_269_722_parameters_and_weightless_shortcuts() -> None:
    """Weights 268,336, scale and shift of 688 channels, 10 biases of the output."""
    model = build(spec_of("resnet20"))
    assert sum(p.numel() for p in model.parameters()) == 268_336 + 2 * (7 * 16 + 6 * 32 + 6 * 64) + 10 == 269_722
    block = model.stage_2.block_1
    inputs = torch.rand(2, 16, 8, 8)
    shortcut = block._shortcut(inputs)
    assert shortcut.shape == (2, 32, 4, 4)
    assert torch.equal(shortcut[:, :16], inputs[:, :, ::2, ::2])
    assert not shortcut[:, 16:].any()
    assert model.stage_1.block_1._shortcut(inputs) is inputs


@pytest.mark.parametrize("architecture", list(architectures))
@pytest.mark.parametrize(("shape", "classes"), [((1, 32, 32), 2), ((3, 51, 34), 7), ((2, 36, 36), 10)])
def test_logits_have_a_column_per_class(architecture: str, shape: tuple[int, ...], classes: int) -> None:
    model = build(spec_of(architecture, shape, classes=classes, widths=NARROW[architecture]))
    for train in (True, False):
        logits = model.train(train)(torch.rand(3, *shape))
        assert logits.shape == (3, classes)
        assert logits.isfinite().all()
        assert logits.std(0).any()  # inputs reach the end


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("architecture", [name for name in architectures if architectures.get(name).smallest])
def test_the_smallest_input_is_the_smallest(architecture: str) -> None:
    known = architectures.get(architecture)
    smallest = known.smallest or 0
    widths = NARROW[architecture]
    assert build(narrow(architecture, (1, smallest, smallest))).eval()(torch.rand(1, 1, smallest, smallest)).shape
    if smallest > 1:
        with pytest.raises((RuntimeError, ValueError)):
            known.build((1, smallest - 1, smallest), 10, widths)(torch.rand(1, 1, smallest - 1, smallest))
    too_small = [(1, smallest - 1, smallest), (3, 64, smallest - 1)] if smallest > 1 else []
    with pytest.raises(ConfigError, match="at most 3 items"):
        narrow(architecture, (1, 1, 64, 64))
    for shape in (*too_small, (smallest, smallest), (64,)):
        with pytest.raises(ModelError) as caught:
            build(narrow(architecture, shape))
        assert "\n" not in str(caught.value)
        for part in (architecture, str(shape), f"at least {smallest}×{smallest} pixels"):
            assert part in str(caught.value)


class TestWidths:
    def test_a_config_leaves_them_to_the_architecture_and_a_spec_writes_them_out(self) -> None:
        for name in architectures:
            config = ModelConfig(architecture=name)
            assert config.widths is None
            spec = config.spec(CIFAR, 10, seed=0)
            assert spec.widths == architectures.get(name).widths
            assert json.loads(spec.model_dump_json())["widths"] == list(spec.widths)
            assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec

    def test_written_out_or_not_is_one_identity(self) -> None:
        for name in architectures:
            written = ModelConfig(architecture=name, widths=architectures.get(name).widths)
            assert written.identity() == ModelConfig(architecture=name).identity()
            assert ModelConfig(architecture=name, widths=NARROW[name]).identity()["widths"] == list(NARROW[name])

    @pytest.mark.parametrize("kind", [ModelConfig, ModelSpec])
    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"architecture": "conv2", "widths": [64, 64]}, "conv2 takes 4 widths, such as [64, 64, 256, 256], not 2"),
            ({"architecture": "lenet5-caffe", "widths": [1] * 4}, "lenet5-caffe takes 3 widths"),
            ({"architecture": "resnet20", "widths": []}, "resnet20 takes 3 widths"),
            ({"architecture": "vgg16", "widths": [64] * 13}, "vgg16 takes 5 widths, such as [64, 128, 256, 512, 512]"),
            ({"widths": []}, "lenet-300-100 takes at least one width, such as [300, 100]"),
            ({"architecture": "conv6", "widths": [0] * 8}, "widths.0"),
        ],
    )
    def test_another_number_of_them_is_one_line(self, kind: type, fields: dict[str, object], says: str) -> None:
        rest = {"input_shape": CIFAR, "classes": 10, "seed": 0} if kind is ModelSpec else {}
        with pytest.raises(ConfigError) as caught:
            validate({**rest, **fields}, kind, "test")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_resnet_that_narrows_is_refused(self) -> None:
        with pytest.raises(ModelError, match=r"cannot build resnet20 of widths \(32, 16, 64\): .*may not fall"):
            build(spec_of("resnet20", widths=(32, 16, 64)))

    def test_every_architecture_describes_itself_in_a_line(self) -> None:
        for name in architectures:
            known = architectures.get(name)
            assert 20 < len(known.description) < 90
            assert "\n" not in known.description
            known.check_widths(name, known.widths)


def test_a_vgg_is_the_papers_table() -> None:
    """Configuration D of table 1, the mean over the image, and nothing with a bias but norms and output."""
    model = build(spec_of("vgg16"))
    names = []
    for number in range(1, 14):
        names += [f"conv_{number}", f"norm_{number}", f"relu_{number}"]
        if number in (ends := [2, 4, 7, 10, 13]):
            names.append(f"pool_{ends.index(number) + 1}")
    assert [name for name, _ in model.named_children()] == [*names, "pool", "flatten", "output"]
    layers = [module for module in model if isinstance(module, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert all((layer.kernel_size, layer.padding, layer.bias) == ((3, 3), (1, 1), None) for layer in layers)
    hidden, shapes = torch.zeros(1, 3, 64, 64), {}
    for name, module in model.eval().named_children():
        hidden = module(hidden)
        shapes[name] = tuple(hidden.shape[1:])
    pools = [shapes[f"pool_{stage}"] for stage in range(1, 6)]
    assert pools == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    assert shapes["pool"] == (512, 1, 1)


def test_a_vgg_takes_any_widths() -> None:
    quarter = Masks.full(build(spec_of("vgg16", widths=(16, 32, 64, 128, 128))))
    unit = 16 * 16
    assert quarter.total == 9 * (48 + unit * (1 + 2 + 4 + 8 + 2 * 16 + 32 + 5 * 64)) + 1280
    falling = Masks.full(build(spec_of("vgg11", widths=(9, 7, 5, 3, 1))))
    assert falling["output.weight"].total == 10
    assert falling["conv_8.weight"].total == 9


def test_a_convolution_costs_two_flops_a_weight_and_position() -> None:
    model = build(spec_of("conv2"))
    by_hand = {
        "conv_1.weight": 2 * 32 * 32 * (9 * 3 * 64),
        "conv_2.weight": 2 * 32 * 32 * (9 * 64 * 64),
        "dense_1.weight": 2 * 16 * 16 * 64 * 256,
        "dense_2.weight": 2 * 256 * 256,
        "output.weight": 2 * 256 * 10,
    }
    masks = Masks.full(model)
    assert count_flops(model, CIFAR, masks).dense == sum(by_hand.values())
    halved = masks["conv_2.weight"].keep.clone()
    halved[:, ::2] = False
    pruned = Masks({**masks, "conv_2.weight": Mask(halved)})
    assert count_flops(model, CIFAR, pruned).effective == sum(by_hand.values()) - by_hand["conv_2.weight"] // 2


def test_resnet20_costs_what_the_literature_says() -> None:
    """About 41 million multiply-adds; 40,551,040 by hand, at two FLOPs each."""
    model = build(spec_of("resnet20"))
    stages = 32 * 32 * (9 * 48 + 9 * 6 * 256), 16 * 16 * 9 * (512 + 5 * 1024), 8 * 8 * 9 * (2048 + 5 * 4096)
    assert count_flops(model, CIFAR, Masks.full(model)).dense == 2 * (sum(stages) + 640) == 2 * 40_551_040


def test_vgg16_costs_what_the_literature_says() -> None:
    """3.13e8 multiply-adds, which Li et al. 2017 (arXiv 1608.08710) give for one with a dense layer of 512 more."""
    model = build(spec_of("vgg16"))
    unit = 9 * 64 * 64
    stages = (
        32 * 32 * (9 * 3 * 64 + unit),
        16 * 16 * unit * (2 + 4),
        8 * 8 * unit * (8 + 2 * 16),
        4 * 4 * unit * (32 + 2 * 64),
        2 * 2 * unit * 3 * 64,
    )
    assert count_flops(model, CIFAR, Masks.full(model)).dense == 2 * (sum(stages) + 5120) == 2 * 313_201_664


@pytest.mark.parametrize("architecture", list(architectures))
def test_the_same_spec_makes_the_same_bits(architecture: str) -> None:
    first = content_sha256(build(narrow(architecture)).state_dict())
    torch.rand(7)
    assert content_sha256(build(narrow(architecture)).state_dict()) == first
    assert content_sha256(build(narrow(architecture, seed=4)).state_dict()) != first


LOGITS = """
import sys
from pathlib import Path
import torch
from tombola.models import load_model
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    model, spec, masks = load_model(Path(folder))
    logits = model.eval()(torch.linspace(0, 1, 2 * 1024).reshape(2, 1, 32, 32))
    print(spec.architecture, logits.detach().numpy().tobytes().hex(), masks.kept)
"""


def test_a_fresh_process_rebuilds_every_architecture_to_the_bit(tmp_path: Path) -> None:
    expected = []
    for name in architectures:
        spec = narrow(name)
        model = build(spec)
        model(torch.rand(5, *SMALL))  # batch norm's buffers are part of a model
        masks = prune(model, 0.5)
        masks.apply_(model)
        save_model(tmp_path / name, spec, model, masks)
        logits = model.eval()(torch.linspace(0, 1, 2 * 1024).reshape(2, *SMALL))
        expected.append(f"{name} {logits.detach().numpy().tobytes().hex()} {masks.kept}")
    command = [sys.executable, "-c", LOGITS, *(str(tmp_path / name) for name in architectures)]
    there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert there.stdout.splitlines() == expected


RECIPE = Recipe.model_validate(
    {"length": "6it", "evaluate_every": "3it", "batch_size": 30, "learning_rate": 0.02, "weight_decay": 0.01}
    | {"optimizer": "sgd", "momentum": 0.9}
)


@pytest.mark.parametrize("architecture", list(architectures))
def test_masks_hold_after_every_step_and_only_weights_are_pruned(architecture: str, digits: DataSet) -> None:
    model = build(narrow(architecture))
    masks = prune(model, 0.7)
    assert masks.total - masks.kept == round(0.7 * masks.total)
    modules = dict(model.named_modules())
    for name in masks:
        module, _, parameter = name.rpartition(".")
        assert parameter == "weight"
        assert isinstance(modules[module], (nn.Linear, nn.Conv2d))
    never = [name for name, _ in model.named_parameters() if "bias" in name or "norm" in name]
    assert never
    assert not set(never) & set(masks)
    assert set(never) | set(masks) == {name for name, _ in model.named_parameters()}

    training = Training(model, digits, RECIPE, masks, seed=1)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(4):
        training.advance()
        training.engine.write_back()
        assert masks.removed_nonzeros(model) == 0
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, start[name]), name  # all of it learns


def test_a_killed_training_of_a_resnet_ends_bit_identically(digits: DataSet, tmp_path: Path) -> None:
    def run(checkpoint: Path | None, kill: bool = False) -> tuple[dict[str, torch.Tensor], list[int]]:
        model = build(narrow("resnet20"))
        masks = prune(model, 0.5)
        seen: list[int] = []

        def look(evaluation: Evaluation, total: int) -> None:
            seen.append(evaluation.iteration)
            if kill and evaluation.iteration == 6:
                raise KeyboardInterrupt

        recipe = RECIPE.model_copy(update={"length": RECIPE.length.parse("9it")})
        fit(model, digits, recipe, masks, 5, checkpoint=checkpoint, checkpoint_seconds=0, on_evaluation=look)
        return model.state_dict(), seen

    whole, _ = run(None)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, kill=True)
    resumed, seen = run(checkpoint)
    assert seen == [6, 9]  # it continued
    assert int(whole["norm_1.num_batches_tracked"]) == 9
    assert content_sha256(resumed) == content_sha256(whole)


def test_the_shipped_configs_still_name_the_runs_they_named() -> None:
    from tombola.runs.folder import run_folder
    from tombola.studies.lottery.config import LotteryConfig

    names = {"digits": "23f75408", "mnist-paper": "ecf27a11", "mnist": "0a80b674"}
    for name, hash8 in names.items():
        for overrides in ([], ["model.widths=[300, 100]"]):  # as older configs wrote it
            config = load_config(config_path(name), LotteryConfig, overrides)
            assert run_folder(Path("runs"), "lottery", config.name, config).root.name.endswith(hash8)
