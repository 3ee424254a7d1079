"""The files that a hybrid study leaves for others, by fixed names, in `results/`."""

from __future__ import annotations

from tombola.reports.printed import png
from tombola.reports.tables import Table
from tombola.runs.atomic import make_folder, write_bytes, write_json, write_text
from tombola.runs.results import Artefacts
from tombola.runs.rows import rows_of
from tombola.studies.hybrid.answers import answers_of, lotteries_of
from tombola.studies.hybrid.exit_curves import exits_chart, gate_chart
from tombola.studies.hybrid.forest_results import features_table
from tombola.studies.hybrid.gating import curve_table
from tombola.studies.hybrid.report import summary_markdown
from tombola.studies.hybrid.result import HybridResult

SUMMARY = "hybrid.json"
NAMES = (SUMMARY, "answers.json", "exits.csv", "gates.csv", "summary.md")
"""Every file of `results/`; the first is written last and names the run that all belong to."""

OPTIONAL_NAMES = ("exits.png", "gate.png")
"""Figures, of what was measured."""

ARTEFACTS = Artefacts(SUMMARY, NAMES, OPTIONAL_NAMES)


def write_results(result: HybridResult) -> None:
    """Writes `results/`."""
    results = result.folder.results
    make_folder(results)
    answers = answers_of(result)
    write_text(results / "summary.md", summary_markdown(result))
    write_json(results / "answers.json", [answer.entry for answer in answers])
    tables: dict[str, Table] = {"exits.csv": features_table(result.rows), "gates.csv": curve_table(result.rows)}
    for name, table in tables.items():
        write_text(results / name, table.to_csv())
    for name, chart in {"exits.png": exits_chart(result.rows), "gate.png": gate_chart(result.rows)}.items():
        if chart is None:
            (results / name).unlink(missing_ok=True)
        else:
            write_bytes(results / name, png(chart))
    write_json(
        results / SUMMARY,
        {
            "run": result.folder.root.name,
            "replicates": len({row["replicate"] for row in rows_of(result.rows, kind="forest")}),
            "units": {"accuracy": "percent", "intervals": "95 %, Student t, each by itself", "flops": "one example"},
            "lotteries": sorted(result.lotteries),
            "tickets": {name: lottery.ticket_numbers for name, lottery in lotteries_of(result).items()},
            "answers": [answer.lead for answer in answers],
        },
    )
