"""The short form of a report on the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from causal_lm_router.evaluation.formatting import PERCENT, SCORE, form_of, format_estimate, format_two_lines
from causal_lm_router.sweeps.report.configurations import Configuration
from causal_lm_router.sweeps.report.findings import Findings, say_cautions, say_selection, say_verdict
from causal_lm_router.sweeps.report.shortfalls import say_shortfalls
from causal_lm_router.terminal import plain_text


def print_summary(findings: Findings, folder: Path, console: Console) -> None:
    """Print the configurations with their main estimates, what was chosen, what differs, and where the report lies.

    What the sweep did not reach comes first. Runs that are left out are named with the reason.
    """
    console.print(plain_text(findings.progress))
    for sentence in say_shortfalls(findings.shortfalls, findings.selection):
        console.print(plain_text(sentence, "bold"))
    if findings.summaries:
        console.print(_table(findings))
        sentences = [*say_selection(findings), say_verdict(findings), *say_cautions(findings)]
        for sentence in sentences:
            console.print(plain_text(sentence))
            console.print()
    for line in _say_left_out(findings):
        console.print(plain_text(line), soft_wrap=True)
    console.print(plain_text(f"report: {folder / 'report.html'}"), soft_wrap=True)


def _say_left_out(findings: Findings) -> list[str]:
    """A line for each state and reason with the runs that are left out for it: many often fail for one reason."""
    names: dict[str, list[str]] = {}
    for run in findings.unfinished:
        detail = " ".join(run.detail.split())
        names.setdefault(f"{run.state}: {detail}" if detail else run.state, []).append(run.folder.name)
    return [f"left out: {', '.join(runs)} ({reason})" for reason, runs in names.items()]


def _table(findings: Findings) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("Configuration", overflow="fold")
    for heading in ("Seeds", "Routing\naccuracy", "Parse\nfailures", "Mean\nscore"):
        table.add_column(heading, justify="right")
    for one in findings.summaries:
        estimates = [
            format_two_lines(one.estimates[name], form_of(name))
            for name in ("routing_accuracy", "parse_failure_rate", "mean_score")
        ]
        # The chosen configuration is printed in bold.
        is_chosen = findings.selection is not None and findings.selection.chosen is one
        cells = [
            str(one.configuration.number),
            _short_name(one.configuration),
            str(one.configuration.num_seeds),
        ]
        table.add_row(*map(plain_text, cells), *estimates, style="bold" if is_chosen else "")
    # References come last, without intervals: they are there for orientation.
    for reference in findings.references:
        accuracy, score = reference.estimates.routing_accuracy, reference.estimates.mean_score
        shown = [format_estimate(accuracy.value, PERCENT), "", format_estimate(score.value, SCORE)]
        table.add_row(*map(plain_text, ["", reference.name, "", *shown]), style="dim")
    return table


def _short_name(configuration: Configuration) -> str:
    """A line per swept setting, its group left out where no other setting has the same name."""
    short = [key.rpartition(".")[2] for key in configuration.swept]
    lines = [
        f"{name if short.count(name) == 1 else key}={text}"
        for name, (key, text) in zip(short, configuration.texts.items(), strict=True)
    ]
    return "\n".join(lines) or configuration.name
