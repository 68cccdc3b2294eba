"""The body of the `merge` command: write the merged checkpoint of a run."""

from pathlib import Path

from causal_lm_router.config import TrainConfig, generating_model
from causal_lm_router.models.base_model import merge_adapter
from causal_lm_router.models.new_tokens import base_model_source
from causal_lm_router.models.precision import resolve_precision
from causal_lm_router.runs.run_folder import RouterMetadata, RunFolder
from causal_lm_router.runs.session import (
    run_targets,
)


def merge_run(config: TrainConfig) -> Path:
    """Write the merged checkpoint of a run where it is missing and return its folder."""
    folder = RunFolder(Path(config.run_dir))
    merge_weights(config, folder, folder.read_metadata())
    print(folder.merged)
    return folder.merged


def merge_weights(config: TrainConfig, folder: RunFolder, metadata: RouterMetadata) -> None:
    if not folder.merged.is_dir():
        config = resolve_precision(config)
        targets = run_targets(config, metadata.candidate_names, metadata.best_single)
        source = base_model_source(config.base_model, targets.new_tokens)
        merge_adapter(source, generating_model(config.base_model, config.inference), folder.weights, folder.merged)
