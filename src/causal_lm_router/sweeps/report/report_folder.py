"""Writing a report: its folder appears whole, in the place of an earlier report, or not at all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from causal_lm_router.evaluation.figures.drawing import save_figure
from causal_lm_router.evaluation.formatting import Row, write_csv
from causal_lm_router.files.checksums import add_checksums
from causal_lm_router.files.writing import write_folder
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.sweeps.report.figures import draw_chosen_confusion, draw_configurations, draw_curves
from causal_lm_router.sweeps.report.findings import Findings, find
from causal_lm_router.sweeps.report.page import render_markdown, render_page
from causal_lm_router.sweeps.report.parameter_figures import draw_parameter
from causal_lm_router.sweeps.report.runs import is_sweep_folder
from causal_lm_router.sweeps.report.tables import (
    best_cells,
    comparison_rows,
    configuration_rows,
    latex,
    printed_configurations,
    run_rows,
)

PAGE = "report.html"


@dataclass(frozen=True)
class SweepReport:
    """A report that has been written."""

    folder: Path
    rows: list[Row]
    """The table of configurations and references, as in configurations.csv."""
    findings: Findings


def write_report(
    folders: Sequence[Path],
    output: Path,
    *,
    baseline: str | None = None,
    metric: str = "mean_score",
) -> SweepReport:
    """Write the report over the runs in and below `folders` to `output`, in place of an earlier one.

    `baseline` names a configuration (`lora.lora_r=16,optim.learning_rate=0.0005`) or `best_single`; None is the first
    configuration. `metric` is what the best configuration is chosen by on validation. Unfinished runs are listed and
    left out of all results; without any finished run the report is that list. An error leaves an earlier report as it
    was.

    Raises:
        ValueError: a folder holds no runs, no configuration fits `baseline`, or `metric` is unknown.
        FileExistsError: `output` exists and is no report.
    """
    _check_output(output)
    findings = find(folders, baseline, metric)
    # Paths of runs are relative to the folder that holds them, or of several folders to where the report lies.
    is_one_folder = len(folders) == 1 and not RunFolder(folders[0]).config.is_file()
    base = folders[0] if is_one_folder else output.absolute().parent
    title = f"{len(findings.runs)} runs"
    if is_one_folder:
        title = f"{'Sweep' if is_sweep_folder(folders[0]) else 'Runs in'} {folders[0].resolve().name}"
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with write_folder(output.absolute(), replaces=True) as folder:
        rows = _write(findings, folder, title, base, output.absolute())
        add_checksums(folder)
    return SweepReport(output, rows, findings)


def _write(findings: Findings, folder: Path, title: str, base: Path, at: Path) -> list[Row]:
    rows = configuration_rows(findings.summaries, findings.references, findings.selection, base)
    compared = comparison_rows(findings.comparisons, findings.baseline, base)
    write_csv(rows, ["number", "who"], folder / "configurations.csv")
    write_csv(compared, ["number", "configuration", "baseline"], folder / "comparisons.csv")
    write_csv(run_rows(findings.runs, findings.configurations, base), ["run", "state"], folder / "runs.csv")
    # The drawings come before the page, which embeds them.
    figures = folder / "figures"
    figures.mkdir()
    captions = _draw(findings, figures)
    if findings.selection:
        printed = printed_configurations(findings.summaries, findings.references, findings.selection.metric)
        text = latex(printed, best_cells(findings.summaries), title)
        (folder / "configurations.tex").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(render_markdown(findings, title, captions, base), encoding="utf-8")
    page = render_page(findings, title, captions, base, figures, at)
    (folder / PAGE).write_text(page, encoding="utf-8")
    return rows


def _draw(findings: Findings, folder: Path) -> dict[str, str]:
    """Save every drawing that the findings allow as PNG and PDF; return file name without ending -> caption."""
    captions = {}
    for name, caption, figure in _drawings(findings):
        if figure is not None:
            for ending in ("png", "pdf"):
                save_figure(figure, folder / f"{name}.{ending}")
            captions[name] = caption
    return captions


def _drawings(findings: Findings) -> Iterator[tuple[str, str, Figure | None]]:
    """File name, caption and drawing, one after the other; None where there is nothing to draw."""
    if not findings.summaries:
        return
    for number, key in enumerate(findings.configurations[0].swept, start=1):
        # A key may hold characters that file names cannot.
        safe = "".join(char if char.isalnum() or char in "._-" else "_" for char in key)
        caption = f"Routing accuracy and parse-failure rate against {key}; bars are 95% intervals."
        yield f"swept_{number:02}_{safe}", caption, draw_parameter(key, findings.summaries, findings.references)
    caption = "Mean score against mean cost; numbers are those of the table of configurations."
    yield "frontier", caption, draw_configurations(findings.summaries, findings.references)
    if chosen := findings.selection and findings.selection.chosen:
        caption = f"Labels and routes of the configuration chosen on validation, {chosen.configuration.name}."
        yield "confusion", caption, draw_chosen_confusion(chosen.configuration)
    caption = "Learning curves: means over seeds; the loss is a running mean."
    yield "learning_curves", caption, draw_curves(findings.configurations, findings.selection)


def _check_output(output: Path) -> None:
    """Refuse to overwrite anything but a report."""
    is_empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if output.is_symlink() or not (is_empty or (output / PAGE).is_file()):
        raise FileExistsError(f"--output must be a new or empty folder or a report, got {output}")
