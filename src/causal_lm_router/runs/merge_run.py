"""The body of the `merge` command: write the merged checkpoint of a run."""

from pathlib import Path

from causal_lm_router.config import TrainConfig, generating_model
from causal_lm_router.files.checksums import remove_damaged
from causal_lm_router.models.adapter import merge_adapter
from causal_lm_router.models.base_model import base_model_source
from causal_lm_router.models.precision import resolve_precision
from causal_lm_router.runs.run_folder import RunFolder, own_run
from causal_lm_router.runs.session import run_targets


def merge_run(config: TrainConfig) -> Path:
    """Write the merged checkpoint of a run where it is missing and return its folder.

    Raises:
        FileNotFoundError: the folder holds no trained router.
        ValueError: a file of it is damaged, or somebody else works there.
    """
    config, folder = resolve_precision(config), RunFolder(Path(config.run_dir))
    metadata = folder.read_metadata()
    targets = run_targets(config, metadata.candidate_names, metadata.best_single)
    with own_run(folder):
        merge_weights(config, folder, base_model_source(config.base_model, targets.new_tokens))
    print(folder.merged)
    return folder.merged


def merge_weights(config: TrainConfig, folder: RunFolder, source: str) -> None:
    """Write the merged checkpoint where it is missing; `source` is the base model's folder or hub name."""
    remove_damaged(folder.merged)
    if not folder.merged.is_dir():
        # In the dtype that generates, so that the checkpoint says what the evaluation said.
        merge_adapter(source, generating_model(config.base_model, config.inference), folder.weights, folder.merged)
