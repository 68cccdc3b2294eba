"""The `preferences` format: judgements of two answers to a query, by people or by an LLM.

    {"query": "What is 2 + 2?", "model_a": "gpt-4", "model_b": "mixtral-8x7b", "winner": "model_a"}

    query             text, required
    model_a, model_b  text, required: the two LLMs
    winner            "model_a", "model_b", "tie" or "tie (bothbad)", required
    task              text, optional: "all" where no task is given
    split             "train", "validation" or "test", optional: else what the file's name says

The pool is two candidates: the LLMs of the first row, or the two tiers of `data.tiers`, which says of each LLM to which
tier it belongs (RouteLLM, arXiv 2406.18665, section 4.1). Judgements within one tier, or of an LLM that no tier has,
are left out and counted. A candidate's score is the mean over all judgements of the query: 1 for a win, 0.5 for a tie.

Files are UTF-8 JSON lines; any other key is a bad row. `data.path` is a file, a folder (all its `*.jsonl`) or a glob.
Costs are unknown unless `data.pool_path` has prices of the candidates and `data.assumed_output_tokens` is set.
"""

from dataclasses import dataclass, field
from typing import Any

from causal_lm_router.config import PreferencesDataConfig
from causal_lm_router.data.sources.files import find_files, require_path, source_split
from causal_lm_router.data.sources.lines import read_lines
from causal_lm_router.data.sources.pool import choose_pool, find_pool
from causal_lm_router.data.sources.row_values import optional_text, require_text
from causal_lm_router.data.sources.rows import ALL_TASKS, ExampleCollector
from causal_lm_router.data.sources.strict_json import decode_line
from causal_lm_router.routing import RoutingData

_KEYS = frozenset({"query", "model_a", "model_b", "winner", "task", "split"})
_POINTS = {"model_a": (1.0, 0.0), "model_b": (0.0, 1.0), "tie": (0.5, 0.5), "tie (bothbad)": (0.5, 0.5)}
"""What each winner gives to model_a and to model_b."""


@dataclass
class _Judged:
    """The judgements of one query; place, task and split are those of its first one."""

    location: str
    task: str
    split: str | None
    points: dict[str, list[float]] = field(default_factory=dict)


def load(config: PreferencesDataConfig) -> RoutingData:
    """Return the routing data of judgements in the schema above.

    Raises:
        ValueError: there is no such file, or a row is bad; the message names its file and line.
    """
    value = require_path("data.path", config.path, "a .jsonl file, a folder of them or a glob")
    collector = ExampleCollector(config)
    tiers, queries = dict(config.tiers), dict[str, _Judged]()
    for path in find_files("data.path", value, ["*.jsonl"]):
        for line in read_lines(path, config.max_query_chars):
            location = f"{path}:{line.number}"
            with collector.row(location):
                row = decode_line(line)
                points = _read_points(row)
                # Without tiers, the first row's LLMs are the pool.
                tiers = tiers or {name: name for name in points}
                if reason := _why_left_out(points, tiers, is_open=bool(config.tiers)):
                    collector.leave_out(location, reason)
                    continue
                split = optional_text(row, "split") or source_split(path)
                first = _Judged(location, optional_text(row, "task") or ALL_TASKS, split)
                judged = queries.setdefault(require_text(row, "query"), first)
                for name, value_of in points.items():
                    judged.points.setdefault(tiers[name], []).append(value_of)
    if tiers:
        collector.pool = choose_pool(list(dict.fromkeys(tiers.values())), find_pool(config))
    for query, judged in queries.items():
        with collector.row(judged.location):
            scores = {name: sum(points) / len(points) for name, points in judged.points.items()}
            collector.add(query, scores, task=judged.task, split=judged.split)
    return collector.data()


def _read_points(row: dict[str, Any]) -> dict[str, float]:
    """Return what the judgement gives to each of its two LLMs."""
    if unknown := row.keys() - _KEYS:
        raise ValueError(f"unknown key {min(unknown)!r}; the keys are {', '.join(sorted(_KEYS))}")
    names, winner = (require_text(row, "model_a"), require_text(row, "model_b")), require_text(row, "winner")
    if winner not in _POINTS:
        raise ValueError(f"winner must be {' | '.join(_POINTS)}, got {winner!r}")
    if names[0] == names[1]:
        raise ValueError(f"model_a and model_b must differ, got {names[0]!r} twice")
    return dict(zip(names, _POINTS[winner], strict=True))


def _why_left_out(points: dict[str, float], tiers: dict[str, str], *, is_open: bool) -> str | None:
    """Return why a judgement says nothing about the two tiers; ValueError for an LLM too many without tiers."""
    unknown = [name for name in points if name not in tiers]
    if unknown and not is_open:
        raise ValueError(f"all rows must judge {' and '.join(tiers)} unless data.tiers is set, got {unknown[0]!r}")
    if unknown:
        return "an LLM of no tier"
    return None if len({tiers[name] for name in points}) == 2 else "two LLMs of one tier"
