"""The search space of a search: Hydra's ranges turned into Optuna's distributions."""

from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep, Transformer
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution


def distribution_of(override: Override) -> Distribution:
    """Return the distribution for a swept override.

    `choice(...)`, `a,b,c` and `glob(...)` are categories. `range(...)` leaves out its end, as it does in a grid.
    `interval(...)` includes both ends and holds integers under `int(...)`. `tag(log, ...)` makes a range or an interval
    logarithmic.

    Raises:
        ValueError: the tag is not `log`, or the range is empty or not one that Optuna takes.
    """
    try:
        return _distribution(override)
    except ValueError as error:
        raise ValueError(f"{override.input_line}: {error}") from error


def edges(distribution: Distribution) -> list[Any]:
    """Return the choices of a categorical distribution, or both ends of an interval."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


def _distribution(override: Override) -> Distribution:
    # Only a logarithmic scale can be asked for by a tag.
    sweep = override.value()
    tags = sweep.tags if isinstance(sweep, Sweep) else set[str]()
    is_log = tags == {"log"} and isinstance(sweep, IntervalSweep | RangeSweep)
    if tags and not is_log:
        raise ValueError(f"tags must be log, for a range or an interval, got {sorted(tags)}")
    if isinstance(sweep, RangeSweep):
        numbers = list(sweep.range())
        if not numbers:
            raise ValueError("a range must hold at least one number")
        return _numbers(min(numbers), max(numbers), is_log, abs(sweep.step))
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        return _numbers(sweep.start, sweep.end, is_log, None)
    # Keep the order of the choices: a shuffled list would make a different search each time.
    choices = sweep.list if isinstance(sweep, ChoiceSweep) else override.sweep_iterator()
    return CategoricalDistribution([_choice(choice) for choice in choices])


def _numbers(low: float, high: float, is_log: bool, step: float | None) -> Distribution:
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=is_log, step=int(step or 1))
    return FloatDistribution(low, high, log=is_log, step=step)


def _choice(value: Any) -> Any:
    """A number or truth value stays; anything else becomes the text that stands for it in an override."""
    return value if isinstance(value, int | float) else Transformer.str(value)
