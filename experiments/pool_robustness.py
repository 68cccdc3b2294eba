"""What a router makes of its pool: in another order, with a candidate renamed, with one that training held out.

    python experiments/pool_robustness.py <run_dir> [--queries 200] [--orders 5] [--rename old=new ...]
        [--output pool.json] [overrides of `causal-lm-router evaluate` ...]

Order (where the prompt lists the candidates): every query is read with prompt.shuffle_seed=0, 1, ... . Renaming: the
run's candidate `old` is called `new` (data.renamed_candidates), all else the same. Held out (where the run was trained
with data.held_out_candidates): how often the router calls a candidate that training never named, against how often the
oracle does, ties split evenly among the best. Prints a Markdown table; intervals are 95%, exact for shares of queries,
normal over queries for the others.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from run_routes import (
    Routes,
    compose_run,
    format_percent,
    format_score,
    hit_estimate,
    open_run,
    read_routes,
    table_head,
    table_row,
)

from causal_lm_router.config import EvaluateConfig
from causal_lm_router.evaluation.intervals import Estimate, mean_estimate
from causal_lm_router.files.writing import write_text
from causal_lm_router.prompting.prompt import CANDIDATES
from causal_lm_router.routing import RoutingExample
from causal_lm_router.runs.session import Session
from causal_lm_router.runs.workbench import Workbench


@dataclass(frozen=True)
class Finding:
    """One estimate: what was done to the pool, what was counted."""

    check: str
    what: str
    estimate: Estimate
    is_share: bool = True

    @property
    def row(self) -> str:
        """The estimate as a row of the table."""
        return table_row(self.check, self.what, (format_percent if self.is_share else format_score)(self.estimate))


def main() -> None:
    """Run the checks that the run allows, print the table, write the estimates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--queries", type=int, default=200, help="at most so many of the final split")
    parser.add_argument("--orders", type=int, default=5, help="how many orders of the candidates to compare")
    parser.add_argument("--rename", nargs="*", default=[], metavar="OLD=NEW", help="candidates to rename, one by one")
    parser.add_argument("--output", type=Path, help="JSON file of all estimates")
    parser.add_argument("overrides", nargs="*", help="overrides of `causal-lm-router evaluate`")
    arguments = parser.parse_intermixed_args()
    config = compose_run(arguments.run_dir, arguments.overrides)
    renamings = [parse_renaming(text) for text in arguments.rename]
    with Workbench(keeps_base_model=False) as workbench:
        findings = check_pool(config, workbench, arguments.queries, arguments.orders, renamings)
    print(table_head("check", "what", "value"), *(finding.row for finding in findings), sep="\n")
    if arguments.output:
        write_text(arguments.output, json.dumps([asdict(one) for one in findings], indent=2, ensure_ascii=False) + "\n")


def parse_renaming(text: str) -> tuple[str, str]:
    """Return (old, new) of `old=new`; raise ValueError for anything else."""
    old, _, new = text.partition("=")
    if not old or not new:
        raise ValueError(f"--rename must be old=new, got {text!r}")
    return old, new


def check_pool(
    config: EvaluateConfig,
    workbench: Workbench,
    num_queries: int,
    num_orders: int,
    renamings: Sequence[tuple[str, str]],
) -> list[Finding]:
    """Return the estimates of every check that applies to the run; raise ValueError where none does."""
    lists, held_out = CANDIDATES in config.prompt.template, config.data.held_out_candidates
    if not (lists or renamings or held_out):
        raise ValueError(
            "nothing to check: the prompt lists no candidates, --rename names none, and the run held none out"
        )
    with open_run(config, workbench) as session:
        examples = session.data.examples(config.evaluation.final_split, num_queries)
        routes = read_routes(session, _queries(examples))
        findings = _check_orders(session, examples, num_orders) if lists else []
    for old, new in renamings:
        findings += renamed(old, new, examples, routes, _routes_renamed(config, workbench, examples, old, new))
    for name in held_out:
        findings += called_held_out(name, examples, routes)
    return findings


def _queries(examples: Sequence[RoutingExample]) -> list[str]:
    return [example.query for example in examples]


def _check_orders(session: Session, examples: Sequence[RoutingExample], num_orders: int) -> list[Finding]:
    prompts = [replace(session.config.prompt, shuffle_seed=seed) for seed in range(num_orders)]
    return order_sensitivity(examples, [read_routes(session, _queries(examples), prompt) for prompt in prompts])


def _routes_renamed(
    config: EvaluateConfig, workbench: Workbench, examples: Sequence[RoutingExample], old: str, new: str
) -> list[str | None]:
    """The routes of the same queries with `old` called `new`."""
    names = {**config.data.renamed_candidates, old: new}
    held_out = [new if name == old else name for name in config.data.held_out_candidates]
    data = replace(config.data, renamed_candidates=names, held_out_candidates=held_out)
    with open_run(replace(config, data=data), workbench) as session:
        return read_routes(session, _queries(examples))


def order_sensitivity(examples: Sequence[RoutingExample], routes: Sequence[Routes]) -> list[Finding]:
    """Return how often routes depend on the order; `routes` holds those under each order, at least two.

    Between two orders: the share of differing pairs of orders per query, averaged over queries.
    """
    if len(routes) < 2:
        raise ValueError(f"--orders must be at least 2, got {len(routes)}")
    by_query = list(zip(*routes, strict=True))
    pairs = [[one != other for one, other in combinations(row, 2)] for row in by_query]
    scores = sorted((mean_score(examples, row) for row in routes), key=lambda estimate: estimate.value)
    check = f"{len(routes)} orders of the candidates"
    return [
        Finding(check, "queries whose route is not the same under all", hit_estimate([any(row) for row in pairs])),
        Finding(check, "routes that differ between two", mean_estimate([float(np.mean(row)) for row in pairs])),
        Finding(check, "mean score, lowest", scores[0], is_share=False),
        Finding(check, "mean score, highest", scores[-1], is_share=False),
    ]


def renamed(old: str, new: str, examples: Sequence[RoutingExample], before: Routes, after: Routes) -> list[Finding]:
    """Return what became of the routes to a candidate that is called `new` in `after`; `examples` still call it `old`.

    A route to the candidate itself counts as the same under either name.
    """
    same_names = [old if route == new else route for route in after]
    check = f"`{old}` called `{new}`"
    pairs = list(zip(before, same_names, strict=True))
    return [
        Finding(check, "routes to it, old name", hit_estimate([route == old for route in before])),
        Finding(check, "routes to it, new name", hit_estimate([route == old for route in same_names])),
        Finding(check, "routes that change", hit_estimate([one != other for one, other in pairs])),
        Finding(check, "parse failures, new name", hit_estimate([route is None for route in after])),
        Finding(check, "mean score, old name", mean_score(examples, before), is_share=False),
        Finding(check, "mean score, new name", mean_score(examples, same_names), is_share=False),
    ]


def called_held_out(name: str, examples: Sequence[RoutingExample], routes: Routes) -> list[Finding]:
    """Return how often a candidate is called that training held out, and how often it should be."""
    best = [example.best_candidates() for example in examples]
    check = f"`{name}` held out of training"
    return [
        Finding(check, "routes to it", hit_estimate([route == name for route in routes])),
        Finding(check, "routes of the oracle to it", mean_estimate([(name in row) / len(row) for row in best])),
        Finding(check, "queries on which it alone is best", hit_estimate([row == [name] for row in best])),
        Finding(check, "mean score of the routes", mean_score(examples, routes), is_share=False),
    ]


def mean_score(examples: Sequence[RoutingExample], routes: Routes) -> Estimate:
    """Return the mean score of the routes; a parse failure scores 0."""
    pairs = zip(examples, routes, strict=True)
    return mean_estimate([0.0 if route is None else example.scores[route] for example, route in pairs])


if __name__ == "__main__":
    main()
