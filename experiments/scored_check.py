"""How far `decoding=scored` is from plain transformers: every target's log-likelihood, of a finished run.

    python experiments/scored_check.py <run_dir> [--queries 50] [overrides of `evaluate` ...]

Plain means: one forward pass over prompt and target, without cache, tree or batch, and the sum of the target tokens'
log-softmax. Both sides compute with float32 weights. Takes validation queries; prints the largest absolute difference
in nats and on how many queries the likeliest target is another.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from run_routes import compose_run, open_run
from transformers import PreTrainedModel

from causal_lm_router.models.adapter import load_trained
from causal_lm_router.models.base_model import base_model_source
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.workbench import Workbench

FLOAT32 = ("base_model.dtype=float32", "inference.dtype=float32")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--queries", type=int, default=50)
    arguments, overrides = parser.parse_known_args()
    config = compose_run(arguments.run_dir, [*FLOAT32, *overrides])
    with Workbench() as workbench, open_run(config, workbench) as session:
        queries = [example.query for example in session.data.splits.validation[: arguments.queries]]
        prompts = [prompt.input_ids for prompt in session.encoder.encode_prompts(queries)]
        targets = session.encoder.trie.sequences
        scored = session.generator.sequence_logprobs(prompts, session.encoder.trie)
        weights = RunFolder(arguments.run_dir).weights
        assert weights is not None, "open_run loads them"
        source = base_model_source(config.base_model, session.encoder.targets.new_tokens)
        trained = load_trained(source, config.base_model, weights).eval()
        plain = plain_logprobs(trained, prompts, targets)
    difference = np.abs(scored - plain).max()
    others = int((scored.argmax(axis=1) != plain.argmax(axis=1)).sum())
    print(f"{config.inference.backend.value}: {len(prompts)} queries x {len(targets)} targets of", end=" ")
    print(f"{min(map(len, targets))} to {max(map(len, targets))} tokens, log-likelihoods {plain.min():.1f} to", end=" ")
    print(f"{plain.max():.1f}: differs by at most {difference:.1e} nats; the likeliest is another on {others}")


@torch.inference_mode()
def plain_logprobs(
    base_model: PreTrainedModel, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Return [number of prompts, number of targets]: the sum of log-probabilities (nats) of each target's tokens."""
    found = np.empty((len(prompts), len(targets)))
    for row, prompt in enumerate(prompts):
        for column, target in enumerate(targets):
            logits = base_model(torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
            logprobs = logits.double().log_softmax(dim=-1)
            found[row, column] = float(logprobs[torch.arange(len(target)), list(target)].sum())
    return found


if __name__ == "__main__":
    main()
