"""The study from Python, by the names that users of stress evaluations know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tombola.runs.configs import validate
from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.outcome.programs import as_json
from tombola.studies.stress.study import Stress
from tombola.training.device import on_device


class PruningStressEvaluator:
    """Prunes heads of a language model, makes it learn one task after the other, and says what became of it.

    Args:
        model_name: `tiny` (a small model that is trained here once), a name on the hub, or a folder.
        pruning_strategies: Of entropy, entropy_low, magnitude, random, gradient, oracle.
        pruning_levels: Fractions of heads that are removed, each above 0 and below 1.
        output_dir: The folder of the run. A run that was killed goes on there; a finished one is shown.
        device: auto, cpu, cuda or mps; None is auto.
        seed: Makes examples, the order of tasks, and all other chance.

    Examples:
        >>> evaluator = PruningStressEvaluator("tiny", ["entropy"], [0.3], "stress-out")  # doctest: +SKIP
        >>> result = evaluator.run_evaluation("diverse", cycles=2)  # doctest: +SKIP
        >>> result["pruning_results"]["entropy_0.3"]["avg_recovery_rate"]  # doctest: +SKIP
        0.94
    """

    def __init__(
        self,
        model_name: str = "distilgpt2",
        pruning_strategies: str | Sequence[str] = ("entropy", "random"),
        pruning_levels: float | Sequence[float] = (0.1, 0.3, 0.5),
        output_dir: str | Path = "outputs/pruning_stress_eval",
        device: str | None = None,
        seed: int = 42,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.asked: dict[str, Any] = {
            "model": [model_name],
            "strategies": [pruning_strategies] if isinstance(pruning_strategies, str) else pruning_strategies,
            "levels": [pruning_levels] if isinstance(pruning_levels, int | float) else pruning_levels,
            "device": device or "auto",
            "seed": seed,
        }
        self._config()  # refuses at once what is asked for wrongly

    def run_evaluation(
        self,
        protocol_type: Literal["diverse", "memory", "conflict"] = "diverse",
        cycles: int = 3,
        epochs_per_task: int = 1,
        *,
        workers: int = 1,
        **others: Any,
    ) -> dict[str, Any]:
        """Runs, continues or reads the evaluation.

        Args:
            protocol_type: Which tasks.
            cycles: How often all tasks are learned, one after the other.
            epochs_per_task: Of a task's training items, each time it is learned.
            workers: Processes of one thread each.
            others: Further keys of `StressConfig`, such as `replicates=3` or `quick=True`.

        Returns:
            What `pruning_stress_results.json` holds: `["pruning_results"]["entropy_0.3"]["avg_recovery_rate"]`.

        Raises:
            ConfigError, ModelError: in one line, for what cannot be run.
        """
        config = on_device(self._config(protocol=protocol_type, cycles=cycles, epochs=epochs_per_task, **others))
        return as_json(run_study(Stress, config, Call(out=self.output_dir, workers=workers)))

    def _config(self, **more: Any) -> StressConfig:
        return validate({**self.asked, **more}, StressConfig, "PruningStressEvaluator")
