"""Results that are too good to be true."""

from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.routing import FEWEST_QUERIES


def warn_of_perfection(report: RoutingReport) -> str | None:
    """Return the warning that the router never chose wrong; None where it did, or where it could not.

    Not for oracles, which know the scores.
    """
    decided = report.decisive_accuracy
    # Where the best single LLM is always right, being right takes no skill.
    if decided is None or decided.value < 1 or report.num_decisive < FEWEST_QUERIES or report.gap_recovered is None:
        return None
    return (
        f"the router chose a best LLM on all {report.num_decisive:,} queries on which scores differ, as the oracle "
        "does. Which answers turn out right is partly luck, so this is too good to be true: look for the answer in the "
        "queries, for test queries in train, and at how the scores were made."
    )
