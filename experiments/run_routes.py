"""The routes of a finished run under changed prompts, queries or pools, and how shares of them are printed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the commands do; read when torch is imported

import numpy as np

from causal_lm_router.config import EvaluateConfig, PromptConfig
from causal_lm_router.config.compose import compose_on_run
from causal_lm_router.evaluation.intervals import Estimate, rate_estimate
from causal_lm_router.generation.decoder import Decoder
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.session import Session, check_pool_of_run, load_data, open_session
from causal_lm_router.runs.workbench import Workbench

Routes = Sequence[str | None]
"""The route of each query; None where the generation named no candidate."""


def compose_run(run_dir: Path, overrides: Sequence[str]) -> EvaluateConfig:
    """Return the config that `causal-lm-router evaluate run_dir=<run_dir> <overrides>` would run with.

    Raises ValueError for what does not compose, FileNotFoundError for a folder without a run.
    """
    return compose_on_run("evaluate", run_dir, overrides)


@contextmanager
def open_run(config: EvaluateConfig, workbench: Workbench) -> Iterator[Session]:
    """Yield a session whose generator holds the run's weights.

    Raises ValueError where the data's pool is not the run's, FileNotFoundError for a run without weights.
    """
    folder = RunFolder(Path(config.run_dir))
    metadata = folder.read_metadata()
    data = load_data(config.data, workbench)
    check_pool_of_run(config, metadata, data)
    with open_session(config, folder, data, workbench) as session:
        session.generator.load_weights(folder.weights)
        yield session


def read_routes(session: Session, queries: Sequence[str], prompt: PromptConfig | None = None) -> list[str | None]:
    """Return the route of every query under the run's decoding, with other prompt settings if there are any."""
    config, encoder = session.config, session.encoder
    if prompt is not None:
        encoder = Encoder(encoder.tokenizer, prompt, encoder.targets)
    costs = session.data.mean_costs
    decoder = Decoder(session.generator, encoder, config.decoding, config.objective, config.parsing, costs)
    decoded = decoder.decode(config.decoding.method, encoder.encode_prompts(queries))
    return [decoding.route.candidate for decoding in decoded]


def hit_estimate(hits: Sequence[bool]) -> Estimate:
    """Return the share of hits with its exact 95% interval."""
    return rate_estimate(int(np.sum(hits)), len(hits))


def format_percent(estimate: Estimate) -> str:
    """Return a share with its interval as it is printed."""
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def format_score(estimate: Estimate) -> str:
    """Return a mean score with its interval as it is printed."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def table_row(*cells: str) -> str:
    """Return a row of a Markdown table; bars inside its cells are escaped."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table_head(*titles: str) -> str:
    """Return the two lines a Markdown table begins with."""
    return table_row(*titles) + "\n|" + " --- |" * len(titles)
