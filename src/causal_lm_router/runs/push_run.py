"""The body of the `push` command: upload a run's weights and their model card to the hub."""

from pathlib import Path

import huggingface_hub

from causal_lm_router.config import PushConfig, PushedWeights
from causal_lm_router.files.checksums import check_files, read_checked, write_checked
from causal_lm_router.models.hub import hub_answers
from causal_lm_router.runs.model_card import PEFT_LIBRARY, WHOLE_LIBRARY
from causal_lm_router.runs.run_folder import RunFolder


def push_run(config: PushConfig) -> bool:
    """Upload the weights to `config.repo`, list the files with their sizes and return True.

    Without a key, without the hub and under `dry_run=true` it uploads nothing, says why, and returns False.

    Raises:
        FileNotFoundError: the run has no such weights.
    """
    folder = RunFolder(Path(config.run_dir))
    folder.read_metadata()  # raises where the folder holds no trained router
    weights = _complete_weights(folder, config.what)
    check_files(weights)
    files = sorted(path for path in weights.rglob("*") if path.is_file())
    for path in files:
        print(f"{path.stat().st_size:>14,} bytes  {path.relative_to(weights)}")
    visibility = "private" if config.private else "public"
    target = f"{len(files)} files to the {visibility} repository {config.repo}"
    # The files are listed in any case, so that a trial shows what would be public.
    if reason := _reason_to_wait(config):
        print(f"nothing was uploaded: {reason}; it would have been {target}")
        return False
    api = huggingface_hub.HfApi()
    # One that exists stays as private or public as it is.
    api.create_repo(config.repo, private=config.private, exist_ok=True)
    message = f"{config.what.value.capitalize()} weights of the run {config.name}"
    api.upload_folder(repo_id=config.repo, folder_path=weights, commit_message=message)
    print(f"uploaded {target}")
    return True


def _complete_weights(folder: RunFolder, what: PushedWeights) -> Path:
    """Return the folder to upload, with a model card in it."""
    if what is PushedWeights.adapter:
        return folder.weights
    if not folder.merged.is_dir():
        raise FileNotFoundError(
            f"what must be adapter until {folder.merged} is there, got 'merged': the command merge writes it"
        )
    card = folder.merged / "README.md"
    # The card was written for the adapter, and names its library. A run of an earlier version has no card.
    if folder.card.is_file() and not card.is_file():
        text = read_checked(folder.card)
        write_checked(card, text.replace(PEFT_LIBRARY, WHOLE_LIBRARY, 1))
    return folder.merged


def _reason_to_wait(config: PushConfig) -> str | None:
    """Return why nothing can or should be uploaded now; None where all is there for it."""
    # What costs nothing to find out comes first.
    if config.dry_run:
        return "dry_run=true"
    if huggingface_hub.get_token() is None:
        return "there is no key to the hub (HF_TOKEN, or `hf auth login`)"
    if not hub_answers():
        return "the hub does not answer"
    return None
