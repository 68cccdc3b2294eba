"""What preparing a large data file costs: reading, splitting and encoding, in seconds and peak memory.

    python experiments/data_cost.py [--queries 100000]

Writes a JSONL file of random queries (60 words, 9 candidates) to a temporary folder and takes it through the same steps
as `causal-lm-router train data=jsonl`, with the tokens of SmolLM2.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from causal_lm_router.config.compose import compose_config
from causal_lm_router.data.prepared import prepare_data
from causal_lm_router.models.base_model import load_tokenizer, prepare_base_model
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.runs.session import run_targets
from causal_lm_router.training.rows import encode_examples

NUM_WORDS, NUM_CANDIDATES = 60, 9


def main() -> None:
    """Measure and print a line per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100_000)
    num_queries = parser.parse_args().queries
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queries.jsonl"
        write_queries(path, num_queries)
        settings = ["experiment=quickstart", "data=jsonl", "prompt.max_length=512"]
        config = compose_config([*settings, f"data.path={path}", f"run_dir={folder}"])
        config.data.max_train_queries = None
        config.data.tie_break = type(config.data.tie_break).best_on_train
        base = prepare_base_model(config.base_model)
        start = time.perf_counter()
        data = prepare_data(config.data)
        read = time.perf_counter()
        report("read, split, audit, label", num_queries, read - start)
        targets = run_targets(config, data.candidate_names, data.best_single)
        encoder = Encoder(load_tokenizer(base, config.base_model), config.prompt, targets)
        encode_examples(data.train, data.labels, encoder, Path(folder))
        encoded = time.perf_counter()
        report("encode", len(data.train), encoded - read)
        encode_examples(data.train, data.labels, encoder, Path(folder))
        report("encode again (cached)", len(data.train), time.perf_counter() - encoded)


def write_queries(path: Path, num_queries: int) -> None:
    """Write random queries in the jsonl format; seeded."""
    rng = random.Random(0)
    words = [f"w{index}" for index in range(5000)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_queries):
            scores = {f"candidate-{index}": float(rng.random() < 0.5) for index in range(NUM_CANDIDATES)}
            file.write(json.dumps({"query": " ".join(rng.choices(words, k=NUM_WORDS)), "scores": scores}) + "\n")


def report(name: str, num_queries: int, seconds: float) -> None:
    """Print the seconds of a step per 100,000 queries, and the peak memory so far."""
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:<28}{seconds * 100_000 / num_queries:8.1f} s per 100k queries   peak {peak_gib:.2f} GiB")


if __name__ == "__main__":
    main()
