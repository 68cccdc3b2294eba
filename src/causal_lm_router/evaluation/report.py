"""The record of an evaluation: every estimate over its outcomes, and its way to JSON and back."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.latency import Latency
from causal_lm_router.evaluation.measures.prediction_report import PredictionReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a way of choosing that needs no router gets on the same queries."""

    mean_score: Estimate
    routing_accuracy: Estimate
    regret: Estimate
    mean_cost: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """The estimates over one task's queries."""

    num_queries: int
    routing_accuracy: Estimate
    mean_score: Estimate
    best_single_mean_score: Estimate
    oracle_mean_score: Estimate
    num_parse_failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedGeneration:
    """A generation that names no candidate, as an example of its kind."""

    query_id: str
    query: str
    """The beginning of the query."""
    generation: str
    """The beginning of the generated text."""
    failure: str
    """The kind of parse failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingReport:
    """The method behind the routes, beside free generation and other methods on the same queries and weights."""

    method: str
    """How the routes of the report were read."""
    free_parse_failure_rate: Estimate
    """Share of queries whose free generation names no candidate; under a constraint there are no failures to count."""
    off_list_rate: Estimate
    """Share of queries whose free generation is text other than any target: parse failures of kind `unknown`."""
    valid_mass: Estimate | None
    """Mean probability of generating any target at all; None unless all were looked at (`scored`)."""
    mean_scores: Mapping[str, Estimate]
    """Method -> mean score of its routes."""
    differing_routes: Mapping[str, Estimate]
    """Pair of methods, as `free~scored` -> share of queries on which their routes differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingReport:
    """Every estimate over the outcomes of one evaluation; shares and scores lie in 0..1, costs are USD per query.

    A parse failure is wrong in every accuracy. With a fallback it has the fallback's score and cost, without one it
    scores 0 and costs nothing.
    """

    num_queries: int
    num_decisive: int
    """Queries on which not all candidates score the same."""
    candidate_names: tuple[str, ...]
    """Names in pool order."""
    best_single: str
    """The candidate with the best mean score on the training queries."""
    routing_accuracy: Estimate
    """Share of queries whose route scores as high as any candidate: ties count as right."""
    label_accuracy: Estimate
    """Share of queries whose route is the label."""
    decisive_accuracy: Estimate | None
    """Routing accuracy over the decisive queries alone; None when there are none."""
    mean_score: Estimate
    """Mean score of the called candidates."""
    regret: Estimate
    """Mean of best score minus score."""
    mean_cost: Estimate | None
    """Mean cost of the called candidates; None unless the costs of all queries are known."""
    parse_failure_rate: Estimate
    """Share of queries whose generation names no candidate."""
    fuzzy_rate: Estimate
    """Share of queries whose route was found by similarity alone."""
    truncation_rate: Estimate
    """Share of queries that were cut to fit the prompt."""
    parse_failures: Mapping[str, int]
    """Kind of parse failure -> queries, every kind listed."""
    route_distribution: Mapping[str, float]
    """Candidate -> share of all queries routed to it; what is missing to 1 are parse failures."""
    references: Mapping[str, Reference]
    """`random`, `best_single`, `per_task_best` (the best LLM of each task on train), `same_cost_mixture` (blind calls
    at the router's own mean cost, where costs are known), `oracle`, and `bayes` where expected scores are known."""
    score_gain: Estimate
    """Mean score minus that of best single, paired by query."""
    accuracy_gain: Estimate
    """Routing accuracy minus that of best single, paired by query."""
    gap_recovered: Estimate | None
    """Share of the way from best single to oracle: score gain / (oracle - best single); None where they are equal."""
    bayes_score: Estimate | None
    """Mean over queries of the highest expected score: what the best possible router gets; None where unknown."""
    bayes_gap_recovered: Estimate | None
    """Share of the way from best single to `bayes_score` by realised scores: score gain / (bayes_score - best single).

    None where expected scores are unknown or best single has `bayes_score` already."""
    expected_gap_recovered: Estimate | None
    """The same by the expected scores of the router's and best single's candidates: without the luck of the answers."""
    per_task: Mapping[str, TaskReport]
    """Task -> its estimates, in order of their names."""
    confusion: tuple[tuple[int, ...], ...]
    """Queries by label (rows, pool order) and route (columns, pool order, then parse failures)."""
    queries_per_second: float | None
    """Throughput of generation; None where it was not measured."""
    latency: tuple[Latency, ...] = ()
    """How long single routes and batches take; empty where it was not measured."""
    decoding: DecodingReport | None = None
    """How the routes were read out of the base model; None for routers without one."""
    predictions: PredictionReport | None = None
    """What the router's predictions are worth; None where it names a candidate without scoring the others."""
    failed_generations: tuple[FailedGeneration, ...] = ()
    """A few of the parse failures, as many kinds of them as there are."""
    score_gains: Mapping[str, Estimate] = field(default_factory=dict)
    """Mean score minus that of `per_task_best` and `same_cost_mixture`, paired by query."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before the numbers, with what to try: a sentence or two each."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain dictionaries, lists, numbers, texts and None, free of NaN: fit for JSON."""
        plain: dict[str, Any] = _encode(dataclasses.asdict(self))
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "RoutingReport":
        """Return the report that `to_dict` made `plain` of.

        Raises:
            ValueError: a key is missing or unknown, or its value has another type.
        """
        report = _decode(cls, plain, "report")
        assert isinstance(report, cls)
        return report

    def to_metrics(self) -> dict[str, float]:
        """Return the known values by flat name, for trackers: `routing_accuracy`, `best_single/mean_score`, ..."""
        named: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # A reference stands under its own name: `oracle/mean_score`.
        named |= self.references
        metrics = dict(_values("", {name: value for name, value in named.items() if name not in _APART}))
        metrics |= {f"parse_failures/{kind}": float(count) for kind, count in self.parse_failures.items()}
        if self.queries_per_second is not None:
            metrics["queries_per_second"] = self.queries_per_second
        return metrics


_APART = ("references", "per_task")
"""Fields that `to_metrics` does not list under their own names."""


def _values(prefix: str, named: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The values of the estimates in records, by their path."""
    for name, value in named.items():
        if isinstance(value, Estimate):
            yield f"{prefix}{name}", value.value
        elif isinstance(value, Mapping):
            yield from _values(f"{prefix}{name}/", value)
        elif dataclasses.is_dataclass(value):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            yield from _values(f"{prefix}{name}/", fields)


def _encode(value: Any) -> Any:
    """Turn tuples into lists, which JSON gives back, and read-only mappings into dictionaries."""
    if isinstance(value, Mapping):
        return {key: _encode(inner) for key, inner in value.items()}
    return [_encode(inner) for inner in value] if isinstance(value, tuple) else value


def _decode(kind: Any, plain: Any, where: str) -> Any:
    """Rebuild a value of the annotated kind out of plain ones."""
    origin, arguments = get_origin(kind), get_args(kind)
    # The only unions are those with None, which comes last.
    if origin is UnionType:
        return None if plain is None else _decode(arguments[0], plain, where)
    if origin is Mapping and isinstance(plain, Mapping):
        return {key: _decode(arguments[1], value, f"{where}.{key}") for key, value in plain.items()}
    if origin is tuple and isinstance(plain, list):
        return tuple(_decode(arguments[0], value, f"{where}[{index}]") for index, value in enumerate(plain))
    if dataclasses.is_dataclass(kind) and isinstance(plain, Mapping):
        return _decode_record(kind, plain, where)
    # JSON has one kind of number: a float without a fraction may come back as an integer.
    if type(plain) is kind or (kind is float and type(plain) is int):
        return kind(plain)
    raise ValueError(f"{where} must be {getattr(kind, '__name__', kind)}, got {plain!r}")


def _decode_record(kind: Any, plain: Mapping[str, Any], where: str) -> Any:
    kinds = get_type_hints(kind)
    # Reports written before a field was added lack it.
    optional = {
        one.name
        for one in dataclasses.fields(kind)
        if one.default is not dataclasses.MISSING or one.default_factory is not dataclasses.MISSING
    }
    if wrong := sorted((kinds.keys() ^ plain.keys()) - (optional - plain.keys())):
        raise ValueError(f"{where}: missing or unknown keys {wrong}; the keys must be {list(kinds)}")
    return kind(**{name: _decode(kinds[name], value, f"{where}.{name}") for name, value in plain.items()})
