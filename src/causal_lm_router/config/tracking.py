"""Settings of the group `tracking`."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import Settings, check


class WandbMode(StrEnum):
    """How W&B records: `auto` is online with a key and a reachable server, else offline."""

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class WandbConfig(Settings):
    """How Weights & Biases records a run."""

    mode: WandbMode
    """`auto` records online with a key and a reachable server, else offline."""
    project: str
    """W&B project."""
    entity: str | None
    """W&B user or team; null is the key's own."""
    group: str | None
    """W&B group; null is the sweep's name for the jobs of a sweep, else none."""
    tags: list[str]
    """W&B tags."""
    log_adapter: bool
    """Record the adapter as an artifact."""
    init_timeout_s: int
    """Longest wait for the server before recording offline."""

    def _own_problems(self) -> Iterator[str]:
        timeout_s = self.init_timeout_s
        yield from check(1 <= timeout_s <= 15, "tracking.wandb.init_timeout_s", "an integer in 1..15", timeout_s)


@dataclass
class TrackingConfig(Settings):
    """Who records a run beside its metrics.csv."""

    wandb: WandbConfig
    """Weights & Biases."""
    tensorboard: bool
    """Write TensorBoard event files."""
