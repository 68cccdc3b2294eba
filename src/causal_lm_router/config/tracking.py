"""Settings of the group `tracking`."""

from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import require


class WandbMode(StrEnum):
    """How W&B records: `auto` is online with a key and a reachable server, else offline."""

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class WandbConfig:
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

    def __post_init__(self) -> None:
        short = 1 <= self.init_timeout_s <= 15
        require(short, "tracking.wandb.init_timeout_s", self.init_timeout_s, "an integer in 1..15")


@dataclass
class TrackingConfig:
    wandb: WandbConfig
    """Weights & Biases."""
    tensorboard: bool
    """Write TensorBoard event files."""
