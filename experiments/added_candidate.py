"""A candidate that a router was not trained on: how many of its scores are needed to route to it.

Paper: SCOPE (arXiv 2601.22323), which routes to LLMs it was not trained on by their outcomes on similar queries.
Expected: a few dozen scored queries tell how good the candidate is on all queries, some hundreds where it is good.

    causal-lm-router train experiment=neighbours_cpu data.path=path/to/mmlu_pro 'data.held_out_candidates=[Yi-34B]'
    python experiments/added_candidate.py outputs/neighbours_cpu/... [--queries 300] [--scored 0 25 100 400] [--seed 0]

Takes a run of `target=outcome` that was trained without one candidate (`data.held_out_candidates`). Its training
queries' scores are known of so many queries, drawn at random, and of all; nothing is trained again. With none the
candidate is in no pool and is never routed to. Compared are the run's router, and kNN regression (`--k` neighbours)
over the scores that are known. A router that is trained again for every number of scores is left out: it takes a
training each. Cost: one pass over the test queries with all candidates, and one with this candidate for each number.

Prints a table and writes added_candidate.png and .pdf into the run folder: what the candidate adds to the mean score on
the final split, and the share of what it adds with all scores known. Intervals are 95%, paired by query; they are those
of this draw of scored queries.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from run_routes import compose_run, open_run, table_head, table_row
from scipy.special import expit

from causal_lm_router.config import EvaluateConfig, OutcomeTargetConfig
from causal_lm_router.data.arrays import Floats, matrix
from causal_lm_router.data.neighbours import ScoredQueries
from causal_lm_router.evaluation.figures.drawing import bar_lengths, line_colours, save_figure
from causal_lm_router.evaluation.formatting import PERCENT, POINTS, SCORE, format_estimate
from causal_lm_router.evaluation.interval_formulas import Measure
from causal_lm_router.evaluation.intervals import Estimate, mean_estimate, ratio_estimate
from causal_lm_router.models.embeddings import Embedder
from causal_lm_router.prompting.pair_encoder import PairEncoder
from causal_lm_router.runs.session import EMBEDDING, Session
from causal_lm_router.runs.workbench import Workbench

ALL = "all"
FIGURE = "added_candidate"


@dataclass(frozen=True)
class Finding:
    """What the candidate adds to the mean score of a router that knows so many of its scores."""

    router: str
    num_scored: int | str
    mean_score: Estimate
    routes: float
    """Share of the queries that are routed to the candidate."""
    gain: Estimate
    """Difference to the router that does not have the candidate."""
    share: Estimate | None
    """Of the gain with all scores known; None where that is not above 0."""


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--queries", type=int, help="at most so many of the final split")
    parser.add_argument("--scored", type=int, nargs="+", default=[0, 25, 100, 400])
    parser.add_argument("--k", type=int, default=100, help="neighbours of kNN regression")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of scored queries")
    parser.add_argument("overrides", nargs="*", help="overrides of `causal-lm-router evaluate`")
    arguments = parser.parse_intermixed_args()
    config = compose_run(arguments.run_dir, ["decoding=scored", *arguments.overrides])
    findings = measure(config, arguments.queries, arguments.scored, arguments.k, arguments.seed)
    print(table_head("router", "scored queries", "mean score", "routes to it", "gain (points)", "share of the gain"))
    for one in findings:
        share = "" if one.share is None else format_estimate(one.share, PERCENT)
        cells = (format_estimate(one.mean_score, SCORE), f"{one.routes:.1%}", format_estimate(one.gain, POINTS), share)
        print(table_row(one.router, str(one.num_scored), *cells))
    for suffix in ("png", "pdf"):
        save_figure(draw(findings), arguments.run_dir / f"{FIGURE}.{suffix}")


def measure(config: EvaluateConfig, num_queries: int | None, scored: Sequence[int], k: int, seed: int) -> list[Finding]:
    """Return what the held-out candidate adds, by router and number of scored queries."""
    held_out = config.data.held_out_candidates
    if len(held_out) != 1:
        raise ValueError(f"data.held_out_candidates must hold one candidate of the run, got {held_out}")
    with Workbench(keeps_base_model=False) as workbench, open_run(config, workbench) as session:
        if not isinstance(session.encoder, PairEncoder) or not isinstance(config.target, OutcomeTargetConfig):
            raise ValueError(f"target.kind must be outcome, got {config.target.kind.value!r}")
        examples = session.data.examples(config.evaluation.final_split, num_queries, config.data.split_seed)
        queries, names = [example.query for example in examples], session.data.candidate_names
        column, neighbours = names.index(held_out[0]), session.encoder.neighbours
        order = np.random.default_rng(seed).permutation(len(neighbours.vectors))
        known = {num: neighbours.with_known(column, order[:num].tolist()) for num in scored if num}
        vectors = Embedder(config.target.embedding, EMBEDDING)(queries)

        def predict_by_regression(pool: ScoredQueries, listed: Sequence[str]) -> Floats:
            nearest = pool.nearest(queries, vectors, k).scores[:, [names.index(name) for name in listed]]
            return np.asarray(np.nanmean(nearest, axis=2))

        def predict_by_router(pool: ScoredQueries, listed: Sequence[str]) -> Floats:
            return predict_yes(session, queries, pool, listed)

        scores = matrix([example.scores for example in examples], names)
        findings = []
        for router, predict in (("router", predict_by_router), (f"kNN regression, k {k}", predict_by_regression)):
            whole = predict(neighbours, names)
            predicted: dict[int | str, Floats] = {0: whole.copy()}
            predicted[0][:, column] = -np.inf
            # What is predicted of the others does not depend on this candidate.
            for num, pool in known.items():
                predicted[num] = whole.copy()
                predicted[num][:, column] = predict(pool, held_out)[:, 0]
            predicted[ALL] = whole
            findings += compare(router, {num: row.argmax(axis=1) for num, row in predicted.items()}, scores, column)
    return findings


def predict_yes(session: Session, queries: Sequence[str], pool: ScoredQueries, listed: Sequence[str]) -> Floats:
    """Return a row per query and a column per listed candidate: p(yes) of p(yes or no), with these scores known."""
    assert isinstance(session.encoder, PairEncoder)
    encoder = session.encoder.with_neighbours(pool)
    pairs = [ids for prompt in encoder.encode_prompts(queries, listed) for ids in prompt.pairs]
    logprobs = session.generator.sequence_logprobs(pairs, encoder.trie, num_alike=len(listed))
    predicted: Floats = expit(logprobs[:, 0] - logprobs[:, 1]).reshape(-1, len(listed))
    return predicted


def compare(router: str, routes: dict[int | str, np.ndarray], scores: Floats, column: int) -> list[Finding]:
    """Return the findings of one router; `routes` holds columns by number of scored queries, 0 and ALL among them."""
    reached = {num: scores[np.arange(len(scores)), chosen] for num, chosen in routes.items()}
    whole = reached[ALL] - reached[0]
    return [
        Finding(
            router=router,
            num_scored=num,
            mean_score=mean_estimate(values),
            routes=float((routes[num] == column).mean()),
            gain=mean_estimate(values - reached[0], Measure.difference),
            share=ratio_estimate(values - reached[0], whole),
        )
        for num, values in reached.items()
    ]


def draw(findings: Sequence[Finding]) -> Figure:
    """Return a figure of the gain over the number of scored queries, a line for each router."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    routers = list(dict.fromkeys(one.router for one in findings))
    for number, (router, colour) in enumerate(zip(routers, line_colours(len(routers) + 1), strict=False)):
        own = [one for one in findings if one.router == router]
        # Side by side, so that their intervals can be told apart.
        places = np.arange(len(own)) + 0.12 * (number - (len(routers) - 1) / 2)
        gains = [one.gain for one in own]
        bars = bar_lengths(gains, 100)
        values = [100 * gain.value for gain in gains]
        axes.errorbar(places, values, yerr=bars, fmt="o-", color=colour, capsize=3, label=router)
        axes.set_xticks(range(len(own)), [str(one.num_scored) for one in own])
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("scored queries of the candidate")
    axes.set_ylabel("gain in mean score (points)")
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
