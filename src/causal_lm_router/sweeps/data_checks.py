"""Whether the jobs of a sweep can run on their data: found out for all of them before the first one starts.

What needs no training and no weights is checked: the data are read, and the base model's tokenizer.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from causal_lm_router.baselines import check_fit
from causal_lm_router.config import PROMPTED, BaselineRunConfig, BaseModelConfig, OutcomeTargetConfig, TrainConfig
from causal_lm_router.data.neighbours import score_queries
from causal_lm_router.data.prepared import PreparedData
from causal_lm_router.models.base_model import load_tokenizer, prepare_base_model
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.pair_encoder import PairEncoder
from causal_lm_router.runs.baseline_run import prompting_config
from causal_lm_router.runs.session import check_fallback, check_splits, load_data, run_targets
from causal_lm_router.runs.workbench import Workbench
from causal_lm_router.sweeps.versions import data_version


def check_jobs(configs: Sequence[TrainConfig], workbench: Workbench) -> dict[str, str]:
    """Return the versions of the data that the jobs read (see `data_version`).

    Raises:
        ValueError: jobs cannot run on their data; the message says all that is wrong, a line each.
    """
    # Data configs one after another, since the workbench keeps the data read last.
    by_data: dict[str, list[TrainConfig]] = {}
    for config in configs:
        by_data.setdefault(repr(config.data), []).append(config)
    versions: dict[str, str] = {}
    problems: list[str] = []
    tokenizers = _Tokenizers()
    for group in by_data.values():
        try:
            data = load_data(group[0].data, workbench)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        versions |= data_version(group[0].data, data)
        problems += [problem for config in group for problem in find_problems(config, data, tokenizers)]
    if problems:
        # Jobs that differ in their seed have the same problem.
        raise ValueError("\n".join(dict.fromkeys(problems)))
    return versions


class _Tokenizers:
    """The tokenizers of base models, each loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[str, PreTrainedTokenizerBase] = {}

    def load(self, config: BaseModelConfig) -> PreTrainedTokenizerBase:
        """Return the tokenizer of a base model, without new tokens.

        Raises:
            ValueError: it cannot be had.
        """
        if (key := repr(config)) not in self._loaded:
            self._loaded[key] = load_tokenizer(prepare_base_model(config), config)
        return self._loaded[key]


def find_problems(config: TrainConfig, data: PreparedData, tokenizers: _Tokenizers) -> Iterator[str]:
    """Yield why a job of this config cannot run on its data, a sentence each."""
    checks: list[Callable[[], object]] = [lambda: check_splits(config.evaluation, data)]
    if isinstance(config, BaselineRunConfig) and config.baseline.method not in PROMPTED:
        asked = data.examples(config.evaluation.final_split)
        checks.append(lambda: check_fit(config.baseline, data.train, asked, data.splits.pool))
    else:
        checks.append(lambda: check_fallback(config.parsing, data.candidate_names))
        checks.append(lambda: _make_encoder(config, data, tokenizers))
    for check in checks:
        try:
            check()
        except (ValueError, OSError) as error:
            yield str(error)


def _make_encoder(config: TrainConfig, data: PreparedData, tokenizers: _Tokenizers) -> Encoder:
    """The encoder of a job, for its checks; new tokens are added to the tokenizer alone, which takes no weights."""
    targets = run_targets(config, data.candidate_names, data.best_single)
    tokenizer = tokenizers.load(config.base_model)
    if isinstance(config, BaselineRunConfig):
        config = prompting_config(config, data, tokenizer)
    if targets.new_tokens:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_tokens(list(targets.new_tokens), special_tokens=True)
    if isinstance(config.target, OutcomeTargetConfig):
        # Where the queries lie does not matter to the checks.
        train = data.splits.train
        neighbours = score_queries(train, data.candidate_names, _embed_nowhere([one.query for one in train]))
        return PairEncoder(tokenizer, config.prompt, targets, config.target, neighbours, _embed_nowhere)
    return Encoder(tokenizer, config.prompt, targets)


def _embed_nowhere(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.zeros((len(texts), 1), dtype=np.float32)
