"""What a reader must know before a report's numbers: where they say little about the router, and what to try."""

from causal_lm_router.evaluation.report import RoutingReport

MOSTLY = 0.5
"""Share of parse failures above which a report is about them."""
ONE_LLM = 0.99
"""Share of the routes to one candidate from which a router counts as always calling it."""
_FEWEST_ROUTES = 10
"""Fewer routes may all be the same by chance."""
_TRAIN_MORE = "train longer or at another rate (trainer.num_epochs, optim.learning_rate)"


def mostly_fails(report: RoutingReport) -> bool:
    """Return whether more than half of the generations name no LLM."""
    return report.parse_failure_rate.value > MOSTLY


def warn_of_failures(report: RoutingReport, *, is_trained: bool = True) -> str | None:
    """Return the warning that most generations name no LLM; None where they do.

    `is_trained` is false for a base model that was only prompted.
    """
    if not mostly_fails(report):
        return None
    kinds = {kind: number for kind, number in report.parse_failures.items() if number}
    listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items())
    tries = ["decoding=constrained or decoding=scored, which always name an LLM"]
    if is_trained:
        tries.insert(0, _TRAIN_MORE)
    # Text that was cut off may have been about to name an LLM.
    if max(kinds, key=lambda kind: kinds[kind]) == "truncated":
        tries.insert(0, "a higher inference.max_new_tokens")
    return (
        f"{sum(kinds.values()):,} of {report.num_queries:,} generations name no LLM ({listed}), so the numbers below "
        f"say little about how the router chooses. Try: {'; '.join(tries)}."
    )


def warn_of_one_route(report: RoutingReport, *, is_trained: bool = True) -> str | None:
    """Return the warning that (nearly) all routes are one candidate; None where they are not, or are too few.

    `is_trained` is false for a router without weights of its own.
    """
    top = max(report.route_distribution, key=lambda name: report.route_distribution[name])
    routed = sum(report.route_distribution.values())
    if routed * report.num_queries < _FEWEST_ROUTES or report.route_distribution[top] < ONE_LLM * routed:
        return None
    share = report.route_distribution[top] / routed
    of_what = "routes" if report.parse_failure_rate.value else "queries"
    what = f"{share:.0%} of the {of_what} go to one LLM, {top}: this router equals always calling it."
    # Where the best LLM is the same on every query, nothing is wrong with that.
    if top == report.best_single and report.gap_recovered is None:
        return f"{what} No other LLM scores higher on any of these queries."
    tries = ["data.task_shrinkage=1, which trains on the mean scores of each task", _TRAIN_MORE]
    return f"{what} Try: {'; '.join(tries)}." if is_trained else what
