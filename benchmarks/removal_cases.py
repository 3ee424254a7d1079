"""The networks of `removal_peers.py`, at their usual sizes or small, each with an example of its input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "compression"))

from removal_nets import DenseBlock, Encoder, Shuffled, SqueezeExcite, UNet, mobilenet, resnet_b

from tombola.models import ModelSpec, build

Case = tuple[nn.Module, Any]


def zoo(architecture: str, shape: tuple[int, ...]) -> Case:
    return build(ModelSpec(architecture=architecture, input_shape=shape, classes=10, seed=0)), torch.randn(2, *shape)


def images(model: nn.Module, size: int = 32) -> Case:
    return model, torch.randn(2, 3, size, size)


def language(family: str) -> Case:
    import transformers

    small: dict[str, Any] = {"vocab_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 64}
    if family == "gpt2":
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=64, n_layer=2, n_head=8, vocab_size=128))
    elif family == "opt":
        model = transformers.OPTForCausalLM(transformers.OPTConfig(**small, ffn_dim=256, word_embed_proj_dim=64))
    elif family == "gpt-neox":
        model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**small, intermediate_size=256))
    else:
        sizes = small | {"num_key_value_heads": 4, "intermediate_size": 256}
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    return model, {"input_ids": torch.arange(32).view(2, 16)}


def gine() -> Case:
    from torch_geometric.nn import GINEConv, global_add_pool

    class Graphs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.edge = nn.Linear(5, 32), nn.Linear(3, 32)
            inner = (nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
            self.conv, self.output = GINEConv(nn.Sequential(*inner)), nn.Linear(32, 1)

        def forward(self, nodes: Tensor, edges: Tensor, features: Tensor, batch: Tensor) -> Tensor:
            hidden = torch.relu(self.conv(self.embed(nodes), edges, self.edge(features)))
            return self.output(global_add_pool(hidden, batch, 2))

    edges = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]])
    return Graphs(), (torch.randn(6, 5), edges, torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 1]))


class Recurrent(nn.Module):
    """An LSTM, and a classifier of two layers on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.hidden, self.output = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(torch.relu(self.hidden(self.lstm(inputs)[0][:, -1])))


CASES: dict[str, Callable[[], Case]] = {
    "LeNet-5": lambda: zoo("lenet5", (1, 32, 32)),
    "VGG-16-BN": lambda: zoo("vgg16", (3, 32, 32)),
    "ResNet-20, padded shortcut": lambda: zoo("resnet20", (3, 32, 32)),
    "ResNet-20, 1×1 shortcut": lambda: images(resnet_b((16, 32, 64), blocks=3, classes=10)),
    "MobileNet-like": lambda: images(mobilenet()),
    "DenseNet-like": lambda: images(DenseBlock()),
    "U-Net": lambda: images(UNet()),
    "group norm, gate, groups": lambda: images(SqueezeExcite()),
    "ShuffleNet-like": lambda: images(Shuffled()),
    "TransformerEncoder": lambda: (Encoder(), torch.randn(2, 5, 6)),
    "GINE": gine,
    "LSTM": lambda: (Recurrent(), torch.randn(2, 7, 8)),
    "GPT-2": lambda: language("gpt2"),
    "OPT": lambda: language("opt"),
    "GPT-NeoX": lambda: language("gpt-neox"),
    "Llama": lambda: language("llama"),
}
