"""The start of a run, of a trained router as of a baseline: what the terminal says before the work begins."""

import logging
import os

from causal_lm_router.config import BaselineRunConfig, TrainConfig
from causal_lm_router.data.prepared import PreparedData
from causal_lm_router.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)


def log_start(config: TrainConfig, folder: RunFolder, data: PreparedData) -> None:
    """Say where the run lies, what data it has, and of a baseline its method; training says more once it is set up."""
    splits, path = data.splits, getattr(config.data, "path", None)
    source = config.data.source.value if path is None else f"{config.data.source.value} {path}"
    sizes = f"{len(data.train):,} to train on, {len(splits.validation):,} validation, {len(splits.test):,} test"
    logger.info("run folder: %s", os.path.relpath(folder.path))
    logger.info("data: %s, queries: %s; %d LLMs in the pool", source, sizes, len(splits.pool))
    if isinstance(config, BaselineRunConfig):
        logger.info("baseline: %s", config.baseline.method.value)
