"""What you see of a lottery study: the table, the figures, the page."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports import curves, nature
from tombola.reports.curves import Chart, Series
from tombola.reports.intervals import estimate
from tombola.reports.page import Section, figure_html, page
from tombola.reports.tables import Table, plus_minus
from tombola.runs.configs import dump_config
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.metrics import CHECKS, Summary, failed_checks
from tombola.studies.lottery.verdict import POWER_DIFFERENCE, Verdict

BRANCH_STYLE = {"ticket": 0, "random": 1, "reinit": 2}
BRANCH_NAME = {"dense": "dense", "ticket": "ticket", "random": "random mask", "reinit": "re-initialised"}
TRAINING_CURVES = 5


TABLE_NOTE = (
    "Test accuracy and macro-F1 in percent at the end of training, ± half of the 95 % confidence interval; the "
    "iteration of minimum validation loss (early stop) and the test accuracy there; weights kept; effective "
    "FLOPs of one example, in thousands."
)


def results_table(summaries: Sequence[Summary]) -> Table:
    """Density, accuracy ± CI, F1, early stop, kept weights and FLOPs, for ticket and controls.

    `TABLE_NOTE` says what the columns are; the titles are short so that the table fits a terminal.
    """
    columns = (
        "Density",
        "Network",
        "Test accuracy",
        "F1",
        "Early stop",
        "Accuracy there",
        "Weights",
        "kFLOPs",
    )
    rows = [
        (
            f"{s.density:.1%}",
            s.branch,
            plus_minus(s.test_accuracy),
            f"{s.f1.mean:.2f}",
            plus_minus(s.early_stop_iteration, 0),
            plus_minus(s.early_stop_test_accuracy),
            f"{round(s.kept.mean):,}",
            f"{s.flops_effective.mean / 1000:,.1f}",
        )
        for s in summaries
    ]
    return Table(columns, rows)


def accuracy_chart(summaries: Sequence[Summary]) -> Chart:
    """Final test accuracy against weights remaining, with the dense network as baseline."""
    return _density_chart(summaries, "test_accuracy", "Test accuracy (%)")


def early_stop_chart(summaries: Sequence[Summary]) -> Chart:
    return _density_chart(summaries, "early_stop_iteration", "Early-stop iteration")


def _density_chart(summaries: Sequence[Summary], column: str, title: str) -> Chart:
    dense = next(s for s in summaries if s.branch == "dense")
    series = []
    for branch, style in BRANCH_STYLE.items():
        points = [dense, *(s for s in summaries if s.branch == branch)]
        if len(points) > 1:
            densities = [100 * s.density for s in points]
            series.append(Series(BRANCH_NAME[branch], densities, [getattr(s, column) for s in points], style))
    baseline = ("dense", getattr(dense, column).mean)
    return Chart(nature.DENSITY_AXIS, title, series, baseline, over_density=True)


def layer_chart(rows: Sequence[Row]) -> Chart:
    """Density of every layer by round, of the ticket."""
    layers: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row["kind"] == "layer" and row["branch"] in ("dense", "ticket"):
            by_round = layers.setdefault(row["layer"].removesuffix(".weight"), {})
            by_round.setdefault(row["round"], []).append(100 * row["kept"] / row["total"])
    series = [
        Series(layer, [float(r) for r in sorted(by)], [estimate(by[r]) for r in sorted(by)], style)
        for style, (layer, by) in enumerate(layers.items())
    ]
    return Chart("Round", "Weights remaining in layer (%)", series)


def training_chart(rows: Sequence[Row], summaries: Sequence[Summary]) -> Chart:
    """Validation accuracy during training, of the dense network and tickets spread over the densities."""
    tickets = [s for s in summaries if s.branch in ("dense", "ticket")]
    count = min(TRAINING_CURVES, len(tickets))
    chosen = [tickets[round(i * (len(tickets) - 1) / max(1, count - 1))] for i in range(count)]
    series = []
    for style, summary in enumerate(chosen):
        at: dict[int, list[float]] = {}
        for row in rows:
            if (row["kind"], row["round"], row["branch"]) == ("evaluation", summary.round, summary.branch):
                at.setdefault(row["iteration"], []).append(100 * row["accuracy"])
        iterations = sorted(at)
        name = f"{summary.density:.1%}"
        series.append(Series(name, [float(i) for i in iterations], [estimate(at[i]) for i in iterations], style))
    return Chart("Training iteration", "Validation accuracy (%)", series)


def accuracy_caption(config: LotteryConfig, verdict: Verdict) -> str:
    return (
        f"Final test accuracy, mean of n = {verdict.replicates} replicates; bands are 95 % confidence intervals of "
        "the mean (Student t). Bands may overlap where the differences, paired by replicate, are clear: the verdict "
        f"uses these. {config.model.architecture} on {config.data.name}, rewound to {config.rewind}."
    )


def check_lines(rows: Sequence[Row]) -> list[str]:
    """What the run asserted of itself, with counts; a failed check is named."""
    trainings = [row for row in rows if row["kind"] == "training"]
    lines = []
    for check, meaning in CHECKS.items():
        asked = [row[check] for row in trainings if row[check] is not None]
        lines.append(f"{meaning}: {sum(asked)} of {len(asked)}")
    return lines + failed_checks(rows)


def early_stop_note(rows: Sequence[Row]) -> str:
    """How many early-stop iterations are cut off by the end of training, and so are too small."""
    trainings = [row for row in rows if row["kind"] == "training"]
    late = sum(row["early_stop_iteration"] == row["iterations"] for row in trainings)
    if not late:
        return "Every training passed its minimum of validation loss before its end."
    return (
        f"In {late} of {len(trainings)} trainings the validation loss was still falling at the end: their true early "
        "stop is later than shown, and a longer training would tell."
    )


def cost_line(rows: Sequence[Row]) -> str:
    trainings = [row for row in rows if row["kind"] == "training"]
    seconds = sum(row["seconds"] for row in trainings)
    return f"{len(trainings)} trainings, {seconds:,.0f} seconds of training on one thread each"


def power_line(verdict: Verdict) -> str:
    """What this many replicates could have found."""
    if verdict.power is None:
        return "Power against the controls: unknown, none was compared."
    return (
        f"Power: with {verdict.replicates} replicates and the spread seen, a ticket that is truly "
        f"{POWER_DIFFERENCE:g} point better than a control would be told from it in {verdict.power:.0%} of such "
        "studies."
    )


def report_page(config: LotteryConfig, rows: Sequence[Row], summaries: Sequence[Summary], verdict: Verdict) -> str:
    """`report.html`, whole."""
    n = f"n = {verdict.replicates} replicates, bands 95 % confidence intervals of the mean (Student t)."
    accuracy = figure_html(curves.plotly_figure(accuracy_chart(summaries)), accuracy_caption(config, verdict))
    early = figure_html(
        curves.plotly_figure(early_stop_chart(summaries)),
        f"Iteration of minimum validation loss; {n} Lower learns sooner. Trained for {config.training.length}. "
        + early_stop_note(rows),
    )
    layers = figure_html(curves.plotly_figure(layer_chart(rows)), f"Share of each layer's weights kept; {n}")
    training = figure_html(curves.plotly_figure(training_chart(rows, summaries)), f"By weights remaining; {n}")
    checks = "".join(f"<li>{line}</li>" for line in check_lines(rows))
    sections = [
        Section("Accuracy against weights remaining", accuracy + f"<p>{power_line(verdict)}</p>"),
        Section("How soon it learns", early),
        Section("Results", results_table(summaries).to_html() + f"<p class='caption'>{TABLE_NOTE}</p>"),
        Section("Where the weights go", layers),
        Section("Training curves of chosen rounds", training),
        Section("Checks of the run", f"<ul>{checks}</ul><p>{cost_line(rows)}.</p>"),
        Section("Configuration", f"<pre>{_escaped(dump_config(config))}</pre>"),
    ]
    return page(f"Lottery study: {config.name}", verdict.sentence, sections)


def summary_markdown(folder: RunFolder, config: LotteryConfig, summaries: Sequence[Summary], verdict: Verdict) -> str:
    """The result as a document: verdict, table, how it was made."""
    manifest = folder.read_manifest()
    machine, facts = manifest["machine"], manifest["must_match"]
    data = f"{facts['data']['name']} ({facts['data']['checksum']})"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return "\n".join(
        [
            f"# {config.name}: {config.model.architecture} on {config.data.name}",
            "",
            f"**{verdict.sentence}** {power_line(verdict)}",
            "",
            results_table(summaries).to_markdown(),
            "",
            f"{TABLE_NOTE} n = {verdict.replicates} replicates, Student t.",
            "",
            f"Root seed {config.seed}; {machine['cpu']}, one thread per replicate; {versions}; data {data}.",
            "",
            "```yaml",
            dump_config(config).rstrip(),
            "```",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
