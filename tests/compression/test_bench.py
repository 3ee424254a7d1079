"""Networks on engines: who is wrong, missing or not ready is a row with a reason, and no time."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import no_time
from small_models import invoke, make_child, make_parent, one_line
from tombola.compression import turns
from tombola.compression.bench import benching, peak
from tombola.compression.bench.benching import Bench, Benched, Time, bench
from tombola.compression.engines import by_file
from tombola.compression.engines.engine import BFLOAT16, FLOAT32, INT8, Call, Engine, Job, module_calls
from tombola.compression.engines.rivals import (
    COMPILED,
    EAGER,
    ENGINES,
    ONNXRUNTIME,
    OPENVINO_BF16,
    SPARSE,
)
from tombola.compression.turns import warm_turns
from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import ModelError
from tombola.kernels.target import Target, host
from tombola.models import ModelSpec, build
from tombola.pruning import Masks, prune
from tombola.studies import benching as shown
from tombola.studies.base.output import output


def by(change: float, wrong: float = 0.0) -> object:
    """Torch eager whose logits are `change` larger and whose first class is `wrong` likelier."""

    def prepare(job: Job) -> list[Call]:
        def run(batch: Tensor) -> Tensor:
            outputs: Tensor = job.network.model(batch) + change
            outputs[:, 0] += wrong
            return outputs

        return module_calls(run, job.batches)

    return prepare


def raising(job: Job) -> list[Call]:
    raise RuntimeError("no such\ninstruction")


FAKES = (
    Engine("shifted", FLOAT32, by(0.1)),  # type: ignore[arg-type]
    Engine("shifted bf16", BFLOAT16, by(0.1)),  # type: ignore[arg-type]
    Engine("losing int8", INT8, by(0.0, wrong=100.0)),  # type: ignore[arg-type]
    Engine("broken bf16", BFLOAT16, by(float("nan"))),  # type: ignore[arg-type]
    Engine("raising", FLOAT32, raising),
    Engine("absent", FLOAT32, raising, package="openvino_that_is_not_there"),
)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits"), seed=0)


@pytest.fixture(scope="module")
def network(digits: DataSet) -> tuple[nn.Module, Masks]:
    model = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=0, widths=(6, 5))).eval()
    masks = prune(model, 0.5)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with masks.held(model, optimizer):
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(digits.train.inputs), digits.train.targets).backward()
            optimizer.step()
    return model, masks


def some_memory(engine: Engine, *given: Any) -> int:
    """A process of its own takes seconds: measured is what has no file, and what is ours."""
    return real_memory(engine, *given) if engine in (EAGER, SPARSE) else 1_000_000


real_memory = peak.peak_memory


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "SECONDS", 0.02)
    monkeypatch.setattr(benching, "peak_memory", lambda *_: 1_000_000)


@pytest.fixture(scope="module")
def rows(network: tuple[nn.Module, Masks], digits: DataSet) -> dict[str, Benched]:
    """One measurement of all that is looked at below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benching, "SECONDS", 0.02)
        patch.setattr(benching, "peak_memory", some_memory)
        engines = [*FAKES, *(engine for engine in ENGINES if engine is not COMPILED)]
        found = bench("net", *network, digits, engines=engines, max_drop=0.1)
    return {one.engine: one for one in found.engines}


def test_who_is_wrong_or_missing_has_a_reason_and_no_time(rows: dict[str, Benched]) -> None:
    assert list(rows)[:7] == ["torch eager", *(fake.name for fake in FAKES)]
    fakes = {fake.name for fake in FAKES}
    assert {name for name in fakes if rows[name].times} == {"shifted bf16"}
    assert {name for name in fakes if rows[name].reason is None} == {"shifted bf16"}
    assert {name for name, one in rows.items() if one.wrong} == {"shifted", "losing int8", "broken bf16"}
    assert (rows["shifted"].reason or "").startswith("wrong: outputs differ by ")
    assert (rows["losing int8"].reason or "").startswith("wrong: loses ")
    assert rows["broken bf16"].reason == "wrong: outputs are no finite numbers"
    assert rows["raising"].reason == "no such instruction"
    assert "openvino_that_is_not_there is not installed" in (rows["absent"].reason or "")
    assert all(rows[name].memory is None for name in fakes - {"shifted bf16"})


@pytest.mark.parametrize("name", ["torch eager", "ONNX Runtime", "OpenVINO", "sparse kernels"])
def test_engines_in_float32_are_exact_and_timed(name: str, rows: dict[str, Benched]) -> None:
    one = rows[name]
    assert one.error is not None
    assert one.error <= 1e-4
    assert one.score == rows["torch eager"].score
    assert (one.score or 0) > 0.3  # it has learned, so that there is something to lose
    assert [time.batch for time in one.times] == [1, 64]
    assert all(0 < time.p50 <= time.p95 and time.throughput == time.batch / time.p50 for time in one.times)
    assert one.memory is not None
    assert 0 < one.memory < 1e9
    dense = 2 * (64 * 6 + 6 * 5 + 5 * 10)
    assert one.flops == (dense / 2 if name == "sparse kernels" else dense)


@pytest.mark.parametrize("name", ["ONNX Runtime int8", "OpenVINO int8", "OpenVINO bf16", "OpenVINO int8 sparse"])
def test_engines_of_lower_precision_are_measured_or_have_a_reason(name: str, rows: dict[str, Benched]) -> None:
    """bfloat16 and AMX are not on every processor."""
    one = rows[name]
    if one.precision == INT8 and name != "OpenVINO int8 sparse":
        assert one.times
    assert one.times or "this" in (one.reason or "")
    if one.times:
        assert one.error is not None
        assert 0 < one.error < 0.3


def test_what_is_shown_fits_80_columns_and_names_no_wrong_winner(
    network: tuple[nn.Module, Masks], digits: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    found = bench("net", *network, digits, engines=FAKES)
    shown.show(Console(width=80), found)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "No room for" not in said
    assert "raising: no such instruction." in said
    outcome = shown.outcome(found)
    assert outcome.count("the fastest is torch eager (float32)") + outcome.count("shifted bf16 (bfloat16)") == 2
    content = json.loads(output("bench", shown.numbers([found])).to_json())
    assert [(row["engine"], row["batch"]) for row in content["table"]] == [
        (name, batch) for name in ("torch eager", *(fake.name for fake in FAKES)) for batch in (1, 64)
    ]
    assert content["reasons"] == {
        f"/table/{number}/error": "it was computed and is not a finite number"
        for number, row in enumerate(content["table"])
        if row["engine"] == "broken bf16"
    }


def test_few_test_examples_come_again(network: tuple[nn.Module, Masks], digits: DataSet) -> None:
    few = replace(digits, test=digits.test.first(20))
    found = bench("net", *network, few, engines=())
    assert [time.batch for time in found.engines[0].times] == [1, 64]
    assert found.examples == 20


def test_a_missing_package_is_named_with_its_extra(
    network: tuple[nn.Module, Masks], digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    _, missing = bench("net", *network, digits, engines=(OPENVINO_BF16,)).engines
    assert "openvino is not installed: pip install 'tombola[bench]'" in (missing.reason or "")


def test_a_model_that_does_not_run_is_said_in_a_line(digits: DataSet) -> None:
    with pytest.raises(ModelError, match="net: gives no logits of test examples: RuntimeError"):
        bench("net", nn.Linear(3, 2), Masks({}), digits, engines=())


def test_the_ratio_is_to_the_best_dense_engine_in_float32() -> None:
    def one(engine: Engine, seconds: float) -> Benched:
        return Benched(engine.name, engine.precision, 1, times=tuple(Time(b, seconds, seconds) for b in (1, 64)))

    engines = (one(EAGER, 8e-6), one(ONNXRUNTIME, 4e-6), one(OPENVINO_BF16, 1e-6), one(SPARSE, 2e-6))
    said = shown.outcome(Bench("net", 64, 0.9, None, engines, busy=0.0))
    assert said.startswith(
        "Batch 1: the fastest is OpenVINO bf16 (bfloat16), 1.00 µs; sparse kernels are 2.00 × as fast"
    )
    assert "as ONNX Runtime, the best dense one in float32" in said
    assert "busy" not in " ".join(shown.remarks(Bench("net", 64, 0.9, None, engines, busy=0.1)))
    assert "30% of the blocks" in " ".join(shown.remarks(Bench("net", 64, 0.9, None, engines, busy=0.3)))


def test_weights_are_decompressed_on_amx_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(by_file, "openvino", lambda job, file, more: asked.append(more) or [])
    machine = host()
    for features, possible in (("+avx2", False), ("+avx2,+amx-int8", True)):
        monkeypatch.setattr(by_file, "host", lambda f=features: Target(machine.triple, machine.cpu, f, machine.lanes))
        if possible:
            by_file.openvino_sparse(None, Path())  # type: ignore[arg-type]
        else:
            with pytest.raises(ModelError, match="AMX, which this one has not"):
                by_file.openvino_sparse(None, Path())  # type: ignore[arg-type]
    assert asked == [by_file.SPARSE_RATE]


def test_what_is_not_ready_in_time_is_not_waited_for(
    network: tuple[nn.Module, Masks], digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of torch.compile nothing else is tried: it cannot be ended in this process."""
    monkeypatch.setattr(peak, "SECONDS", 0.01)
    monkeypatch.setattr(benching, "peak_memory", real_memory)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("it was tried"))
    eager, compiled = bench("net", *network, digits, engines=(COMPILED,)).engines
    assert (compiled.engine, compiled.times, compiled.reason) == ("torch.compile", (), "not ready within 0.01 s")
    assert eager.times
    assert eager.memory_reason == "not ready within 0.01 s"


def test_turns_of_single_calls_and_of_blocks() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in "ab"}  # type: ignore[misc]
    means = warm_turns(ways, 0.01, 4)
    assert all(len(taken.seconds) == taken.blocks >= 4 for taken in means.values())
    assert means["a"].blocks == means["b"].blocks
    single = warm_turns(ways, 0.0, 4, each_call=True)
    assert all(len(taken.seconds) > 10 * taken.blocks for taken in single.values())


def test_a_disturbed_block_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "UNDISTURBED", no_time.UNDISTURBED)
    (taken,) = warm_turns({"waits": lambda: time.sleep(0.003)}, 0.0, 3).values()
    assert taken.disturbed == taken.blocks == 3


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models")
    parent = make_parent(home, model={"widths": [6, 5]}, training={"length": "4it", "evaluate_every": "4it"})
    return make_child(parent.folder, home / "child", {"sparsity": 0.5}, fine_tuning=None).folder


class TestCommand:
    def test_several_models(self, child: Path) -> None:
        skipped = [part for engine in ENGINES if engine is not EAGER for part in ("--skip", engine.name)]
        result = invoke("bench", child, child, *skipped, "--json", "-q")
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        content = json.loads(result.stdout)
        assert content["kind"] == "bench"
        assert [(row["model"], row["engine"], row["batch"]) for row in content["table"]] == 2 * [
            ("child", "torch eager", 1),
            ("child", "torch eager", 64),
        ]
        told = invoke("bench", child, *skipped)
        assert "the fastest is torch eager (float32)" in told.stdout

    def test_what_is_refused(self, child: Path) -> None:
        one_line(
            invoke("bench", child, "--skip", "torch.compil"), "--skip 'torch.compil' is no engine", "torch.compile"
        )
        one_line(invoke("bench", "digits"), "a config; run it with: tombola imp digits")
        one_line(invoke("bench", child, "nothing"), "'nothing' is no folder")
