"""Whether routes spread over the pool or collapse on a few candidates."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def route_shares(called: Floats) -> Floats:
    """Return each candidate's share of the calls; NaN where nothing is called.

    `called` holds the weight of each candidate in a query's route: 1 for the one called, all 0 where none is.
    """
    calls = called.sum(axis=0)
    return np.asarray(calls / calls.sum()) if calls.sum() > 0 else np.full(calls.shape, np.nan)


def route_entropy(called: Floats) -> float:
    """Return the entropy of the route shares, -sum p ln p, in nats: 0 for one candidate always, ln C for all alike.

    Source: Shannon (1948), section 6.
    """
    shares = route_shares(called)
    return float(-sum(share * np.log(share) for share in shares if share != 0)) + 0.0


def normalised_entropy(called: Floats) -> float:
    """Return the entropy of the route shares divided by ln C, its largest value: 0..1 (Pielou, 1966)."""
    return route_entropy(called) / float(np.log(called.shape[1]))


def top_share(called: Floats) -> float:
    """Return the share of the calls that goes to the candidate called most: 1/C..1."""
    return float(route_shares(called).max())
