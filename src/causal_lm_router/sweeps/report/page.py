"""The report as Markdown and as one HTML page that needs no other file and no network."""

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from causal_lm_router.evaluation.formatting import Row, escape_markdown, markdown, relative
from causal_lm_router.sweeps.report.findings import Findings, say_cautions, say_method, say_selection, say_verdict
from causal_lm_router.sweeps.report.shortfalls import say_shortfalls
from causal_lm_router.sweeps.report.tables import (
    comparison_rows,
    configuration_rows,
    printed_comparisons,
    printed_configurations,
    run_rows,
)

_PRINTED_RUN = ("configuration", "seed", "state", "routing_accuracy", "mean_score", "parse_failure_rate", "detail")


def render_markdown(findings: Findings, title: str, captions: Mapping[str, str], base: Path) -> str:
    """Return report.md; `captions` maps the file name of a drawing, without ending, to its caption."""
    return _render("report.md.jinja", findings, title, base, figures=captions, autoescape=False)


def render_page(findings: Findings, title: str, captions: Mapping[str, str], base: Path, folder: Path, at: Path) -> str:
    """Return report.html with the drawings of `folder` inside; links to run folders are relative to the folder `at`."""
    # Embedded, so that the page needs no other file.
    pictures = {
        name: (base64.b64encode((folder / f"{name}.png").read_bytes()).decode(), caption)
        for name, caption in captions.items()
    }
    # Tables name runs by their path from the sweep; links must hold from where the report lies.
    links = {relative(run.folder, base): relative(run.folder, at) for run in findings.runs}
    return _render("report.html.jinja", findings, title, base, figures=pictures, links=links, autoescape=True)


def plain_report(findings: Findings, folder: Path) -> dict[str, Any]:
    """Return the report in `folder` as plain values: its sentences, and the rows of its CSV tables."""
    return {
        "report": str(folder),
        "progress": findings.progress,
        "shortfalls": say_shortfalls(findings.shortfalls, findings.selection),
        "selection": say_selection(findings),
        "verdict": say_verdict(findings) if findings.configurations else "",
        "cautions": say_cautions(findings),
        "configurations": configuration_rows(findings.summaries, findings.references, findings.selection, folder),
        "comparisons": comparison_rows(findings.comparisons, findings.baseline, folder),
        "runs": run_rows(findings.runs, findings.configurations, folder),
    }


def _render(template: str, findings: Findings, title: str, base: Path, *, autoescape: bool, **more: Any) -> str:
    # A name that the template does not know is an error rather than an empty text.
    environment = jinja2.Environment(
        autoescape=autoescape, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (resources.files(__package__) / template).read_text(encoding="utf-8")
    metric = findings.selection.metric if findings.selection else "mean_score"
    return environment.from_string(source).render(
        title=title,
        findings=findings,
        verdict=say_verdict(findings) if findings.configurations else "",
        shortfalls=say_shortfalls(findings.shortfalls, findings.selection),
        selection=say_selection(findings),
        cautions=say_cautions(findings),
        configurations=printed_configurations(findings.summaries, findings.references, metric),
        comparisons=printed_comparisons(findings.comparisons),
        runs=_printed_runs(run_rows(findings.runs, findings.configurations, base)),
        method=say_method(findings),
        markdown=markdown,
        escape=escape_markdown,
        **more,
    )


def _printed_runs(rows: Sequence[Row]) -> list[dict[str, str]]:
    printed = []
    for row in rows:
        values = {key: row[key] for key in _PRINTED_RUN}
        # Four digits are enough to tell runs apart; runs.csv has all of them.
        texts = {
            key.replace("_", " "): f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
            for key, value in values.items()
        }
        # A message of several lines would break a Markdown table.
        printed.append({"run": row["run"], **texts, "detail": " ".join(texts["detail"].split())[:300]})
    return printed
