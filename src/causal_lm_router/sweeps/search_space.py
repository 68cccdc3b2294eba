"""The search space: Hydra's ranges as Optuna's distributions."""

from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep, Transformer
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution


def distribution_of(override: Override) -> Distribution:
    """Return the distribution that a range on the command line stands for.

    `choice(...)`, `a,b,c` and `glob(...)` are categories; `range(...)` is without its end, as in a grid, and
    `interval(...)` with both, of integers under `int(...)`. `tag(log, ...)` makes a range or an interval logarithmic.

    Raises:
        ValueError: another tag, or a range that is empty or that Optuna does not allow.
    """
    try:
        return _distribution(override)
    except ValueError as error:
        raise ValueError(f"{override.input_line}: {error}") from error


def edges(distribution: Distribution) -> list[Any]:
    """Return the choices of categories, the ends of an interval."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


def _distribution(override: Override) -> Distribution:
    sweep = override.value()
    tags = sweep.tags if isinstance(sweep, Sweep) else set[str]()
    is_log = tags == {"log"} and isinstance(sweep, IntervalSweep | RangeSweep)
    if tags and not is_log:
        raise ValueError(f"tags {sorted(tags)}: allowed is log, for a range or an interval")
    if isinstance(sweep, RangeSweep):
        numbers = list(sweep.range())
        if not numbers:
            raise ValueError("holds no number")
        return _numbers(min(numbers), max(numbers), is_log, abs(sweep.step))
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        return _numbers(sweep.start, sweep.end, is_log, None)
    # In their order: a shuffled list would make another search each time.
    choices = sweep.list if isinstance(sweep, ChoiceSweep) else override.sweep_iterator()
    return CategoricalDistribution([_choice(choice) for choice in choices])


def _numbers(low: float, high: float, is_log: bool, step: float | None) -> Distribution:
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=is_log, step=int(step or 1))
    return FloatDistribution(low, high, log=is_log, step=step)


def _choice(value: Any) -> Any:
    """A number or truth value as it is, anything else as it stands in an override."""
    return value if isinstance(value, int | float) else Transformer.str(value)
