"""What a report's runs were made of and by: data, number of queries, base model, time, version and command."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from causal_lm_router.runs.job_log import JobState, read_events
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.sweeps.report.configurations import format_value
from causal_lm_router.sweeps.report.runs import Run

_SIZES = {"num_train": "to train on", "num_validation": "validation", "num_test": "test"}
_SHOWN = 3
"""More values than these are counted."""


def say_origins(folders: Sequence[Path], runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return heading and text of what is known, such as `data`, `jsonl mine.jsonl`; nothing of what is not recorded."""
    found = {
        "data": _distinct(_describe_data(run) for run in runs),
        "queries": _distinct(_describe_sizes(run) for run in runs),
        "base model": _distinct(str(run.facts.get("base_model", "")) for run in runs),
        "time": _span([str(_origin(run)["time"]) for run in runs if "time" in _origin(run)]),
        "version": _distinct(_describe_version(run) for run in runs),
        "command": " ; ".join(_commands(folders, runs)),
    }
    return [(heading, text) for heading, text in found.items() if text]


def _origin(run: Run) -> dict[str, Any]:
    """What the run says of how it was made; runs of earlier versions say nothing."""
    origin: dict[str, Any] = run.facts.get("provenance") or {}
    return origin


def _describe_data(run: Run) -> str:
    source, path = run.config.get("data.source"), run.config.get("data.path")
    content = _origin(run).get("data", {}).get("content")
    named = " ".join(format_value(value) for value in (source, path) if value is not None)
    return f"{named} (content {content})" if content else named


def _describe_sizes(run: Run) -> str:
    sizes = [f"{run.facts[key]:,} {text}" for key, text in _SIZES.items() if key in run.facts]
    if not sizes or run.test is None:
        return ""
    return f"{', '.join(sizes)}; {len(run.test.report.candidate_names)} LLMs to choose from"


def _describe_version(run: Run) -> str:
    origin = _origin(run)
    commit = f", commit {origin['commit'][:12]}" if origin.get("commit") else ""
    return f"{origin['version']}{commit}" if "version" in origin else ""


def _commands(folders: Sequence[Path], runs: Sequence[Run]) -> Iterator[str]:
    """The commands that were typed: for a sweep those that its log has, else those of the runs."""
    logged = [
        event.message
        for folder in folders
        for event in read_events(SweepFolder(folder))
        if event.state is JobState.started and event.message
    ]
    typed = logged or [str(_origin(run)["command"]) for run in runs if "command" in _origin(run)]
    yield from _shorten(list(dict.fromkeys(typed)))


def _distinct(texts: Iterator[str]) -> str:
    return " | ".join(_shorten([text for text in dict.fromkeys(texts) if text]))


def _shorten(texts: list[str]) -> list[str]:
    more = len(texts) - _SHOWN
    return [*texts[:_SHOWN], f"and {more} more"] if more > 0 else texts


def _span(times: Sequence[str]) -> str:
    """From the first to the last time, both in UTC as the runs have them."""
    if not times:
        return ""
    first, last = (time.replace("T", " ").replace("+00:00", " UTC") for time in (min(times), max(times)))
    return first if first == last else f"{first} to {last}"
