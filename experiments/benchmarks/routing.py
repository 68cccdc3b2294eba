"""Routing speed and memory against LLMRouter's vLLM path, transformers' pipeline, and the machine's limit.

    pip install --no-deps llmrouter-lib==0.4.0        # in an environment of its own, over this one's packages
    python experiments/benchmarks/routing.py experiment=llmrouter_cpu data.path=path/to/llmrouter [--queries 96]

First it trains a short adapter of SmolLM2-135M for each prompt, one that generates names and one with a token for each
candidate, and merges them; --weights keeps them for the next time. Then every contender routes the same test queries
with the same weights, greedily, in a process of its own: several rounds of other queries each, of which the median
counts. Start-up, with the route of one more query, is told apart. LLMRouter's call of the LLM that it routes to is
left out. `limit` is the time that the floating-point operations that cannot be avoided take at the measured rate of a
matrix product: 2 per weight of the layers and token, 2 per weight of the head and generated token, and attention; a
beginning that all prompts share counts once. Writes a table, and JSON with --output.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import psutil
import torch
from training import count_shared, product_rate

from causal_lm_router import CausalLMRouter
from causal_lm_router.config import Split
from causal_lm_router.config.generation import ParseMode
from causal_lm_router.data.prepared import prepare_data
from causal_lm_router.models.base_model import load_tokenizer
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.routing import Generation
from causal_lm_router.runs.run_folder import RunFolder

PROMPTS = ("seed", "candidates")
FORMATS = ("float32", "bfloat16")
SHORT_TRAINING = (
    "data.max_train_queries=320",
    "data.validation_fraction=0.02",
    "data.test_fraction=0.06",
    "data.task_shrinkage=1",
    "data.keep_undecided=true",
    "prompt.max_length=512",
    "trainer.max_tokens_per_batch=8192",
    "evaluation.final_validation=false",
    "evaluation.every_n_steps=null",
    "tracking=local",
)
"""A minute of training, on each task's mean scores: the routes then differ by query."""


@dataclass(frozen=True, kw_only=True)
class Routed:
    """The routes of a contender, and the tokens that it had to compute after each prompt."""

    routes: list[str | None]
    new_tokens: list[int]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every contender gets: a trained run, its prompts, and the number format."""

    run_dir: Path
    number_format: str
    encoder: Encoder
    warm_up: str
    rounds: list[list[str]]

    @property
    def merged(self) -> Path:
        """The merged checkpoint."""
        return self.run_dir / "merged"

    def prompt(self, query: str) -> str:
        """Return the prompt of a query as text."""
        return self.encoder.format.prompt_text(query)

    def read(self, text: str) -> str | None:
        """Return the candidate that a generated text names."""
        return self.encoder.targets.parse(Generation(text, "stop", 0, None), ParseMode.strict, 0).candidate

    def count_tokens(self, text: str) -> int:
        """Return the tokens of a generated text that are fed back: all, since its end token is the last one."""
        return len(self.encoder.tokenizer(text)["input_ids"])


Route = Callable[[Sequence[str]], Routed]


def main() -> None:
    """Measure every contender and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=96, help="queries of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", nargs="*", default=PROMPTS)
    parser.add_argument("--formats", nargs="*", default=FORMATS)
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--weights", type=Path, help="folder of the trained weights, made where they are missing")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--alone", action="store_true", help="measure one contender in this process")
    arguments, overrides = parser.parse_known_args()
    if arguments.alone:
        arguments.output.write_text(json.dumps(measure(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.weights or Path(folder)
        results = []
        for prompt in arguments.prompts:
            for target in sorted({CONTENDERS[name].target for name in arguments.contenders}):
                train(weights / f"{prompt}-{target}", [*overrides, f"prompt={prompt}", f"target={target}"])
            for number_format in arguments.formats:
                rows: list[dict[str, Any]] = []
                for name in arguments.contenders:
                    rows.append(run_alone(arguments, weights, prompt, number_format, name))
                    # As they come: the whole takes minutes.
                    print_row(rows[-1], rows[0])
                results += rows
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")


def train(run_dir: Path, overrides: list[str]) -> None:
    """Train a run with merged weights, unless the folder holds it."""
    if (run_dir / "merged").exists():
        return
    command = [sys.executable, "-m", "causal_lm_router.commands.cli", "train"]
    subprocess.run([*command, *overrides, *SHORT_TRAINING, "lora.merge_lora=true", f"run_dir={run_dir}"], check=True)


def run_alone(
    arguments: argparse.Namespace, weights: Path, prompt: str, number_format: str, contender: str
) -> dict[str, Any]:
    """Return the result of one contender, measured in a process of its own."""
    one = ["--alone", "--prompts", prompt, "--formats", number_format, "--contenders", contender]
    sizes = ["--queries", str(arguments.queries), "--rounds", str(arguments.rounds), "--weights", str(weights)]
    # The standard output is vLLM's as well.
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, __file__, *one, *sizes, "--output", file.name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{contender}: ended with status {done.returncode} {done.stderr[-3000:]}")
        result: dict[str, Any] = json.load(file)
    return result


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what one contender took in this process."""
    (prompt,), (number_format,), (name,) = arguments.prompts, arguments.formats, arguments.contenders
    contender = CONTENDERS[name]
    task = make_task(
        arguments.weights / f"{prompt}-{contender.target}", number_format, arguments.queries, arguments.rounds
    )
    rate = product_rate(getattr(torch, number_format))
    start = time.perf_counter()
    with_router = contender.open(task)
    route = next(with_router)
    route([task.warm_up])
    start_seconds = time.perf_counter() - start
    seconds, cpu_seconds, routed = [], [], []
    for queries in task.rounds:
        start, cpu_start = time.perf_counter(), used_cpu_seconds()
        routed.append(route(queries))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(used_cpu_seconds() - cpu_start)
    peak = peak_memory_gb()
    with_router.close()
    work = [count_work(task, *pair) for pair in zip(task.rounds, routed, strict=True)]
    return {
        "contender": name,
        "prompt": prompt,
        "format": number_format,
        "queries": arguments.queries,
        "prompt_tokens": [tokens for tokens, _ in work],
        "new_tokens": [sum(one.new_tokens) for one in routed],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "limit_seconds": [operations / rate for _, operations in work],
        "start_seconds": start_seconds,
        "product_gflops": rate / 1e9,
        "peak_memory_gb": peak,
        "threads": torch.get_num_threads(),
        "routes": [route for one in routed for route in one.routes],
    }


def make_task(run_dir: Path, number_format: str, num_queries: int, num_rounds: int) -> Task:
    """Return the task of a trained run in a number format."""
    with CausalLMRouter.from_run(run_dir) as router:
        config, metadata = router.config, RunFolder(run_dir).read_metadata()
    targets = Targets(config.target.kind, tuple(metadata.candidate_names), config.prompt.target, metadata.best_single)
    encoder = Encoder(load_tokenizer(str(run_dir / "merged"), config.base_model), config.prompt, targets)
    queries = [example.query for example in prepare_data(config.data).examples(Split.test)]
    # They come task by task, and so by length.
    random.Random(0).shuffle(queries)
    needed = 1 + num_queries * num_rounds
    if len(queries) < needed:
        raise SystemExit(f"--queries times --rounds must be at most {len(queries) - 1}, got {needed - 1}")
    rounds = [queries[1 + start : 1 + start + num_queries] for start in range(0, needed - 1, num_queries)]
    return Task(run_dir=run_dir, number_format=number_format, encoder=encoder, warm_up=queries[0], rounds=rounds)


def open_ours(task: Task, *overrides: str) -> Iterator[Route]:
    """Yield the route function of `CausalLMRouter`, as the `route` command has it."""
    settings = ["inference.temperature=0", f"inference.dtype={task.number_format}", *overrides]
    with CausalLMRouter.from_run(task.run_dir, overrides=settings) as router:

        def route(queries: Sequence[str]) -> Routed:
            found = router.route(queries)
            texts = [one.generation for one in found]
            return Routed(routes=[one.called for one in found], new_tokens=list(map(task.count_tokens, texts)))

        yield route


def open_llmrouter(task: Task) -> Iterator[Route]:
    """Yield `route_batch` of LLMRouter's own class over vLLM, with this task's prompts; it calls no LLM."""
    import vllm
    from llmrouter.models.causallm_router import router as llmrouter

    answer = {"response": ""}
    llmrouter.call_api = lambda request, **settings: answer
    vllm.LLM = partial(vllm.LLM, dtype=task.number_format)
    router = llmrouter.CausalLMRouter.__new__(llmrouter.CausalLMRouter)
    # What its constructor reads from its files. It takes nine tenths of the memory where nothing else is said.
    state = {
        "cfg": {"model_path": {"load_model_path": str(task.merged)}, "api_endpoint": "none"},
        "model_config": {"temperature": 0.0, "gpu_memory_utilization": 0.4},
        "model_names": list(task.encoder.targets.candidate_names),
        "vllm_model": None,
    }
    vars(router).update(state, _build_prompt=task.prompt)
    # It does not give its texts back, but what each of its routes says.
    texts = dict(zip(task.encoder.targets.candidates, task.encoder.targets.texts, strict=True))

    def route(queries: Sequence[str]) -> Routed:
        routes = [row["model_name"] for row in router.route_batch([{"query": query} for query in queries])]
        return Routed(routes=routes, new_tokens=[task.count_tokens(texts[route]) for route in routes])

    yield route


def open_pipeline(task: Task) -> Iterator[Route]:
    """Yield transformers' text-generation pipeline, in batches of 32."""
    from transformers import pipeline

    dtype = getattr(torch, task.number_format)
    tokenizer = load_tokenizer(str(task.merged), SimpleNamespace(revision=None, trust_remote_code=False))
    tokenizer.padding_side = "left"
    generate = pipeline("text-generation", model=str(task.merged), tokenizer=tokenizer, dtype=dtype, device="cpu")

    def route(queries: Sequence[str]) -> Routed:
        options = {"max_new_tokens": 32, "do_sample": False, "return_full_text": False, "batch_size": 32}
        texts = [found[0]["generated_text"] for found in generate([task.prompt(query) for query in queries], **options)]
        return Routed(routes=list(map(task.read, texts)), new_tokens=list(map(task.count_tokens, texts)))

    yield route


@dataclass(frozen=True, kw_only=True)
class Contender:
    """How a contender routes, and the kind of target that it was trained on."""

    open: Callable[[Task], Iterator[Route]]
    target: str = "name"


def ours(*overrides: str, target: str = "name") -> Contender:
    """Return this framework with overrides of a run's settings."""
    return Contender(open=lambda task: open_ours(task, *overrides), target=target)


CONTENDERS = {
    "ours": ours(),
    "ours, constrained": ours("decoding=constrained"),
    "ours, trie": ours("decoding=trie"),
    "ours, scored": ours("decoding=scored"),
    "ours, token": ours(target="token"),
    "ours, token, scored": ours("decoding=scored", target="token"),
    "ours by transformers": ours("inference=transformers"),
    "by transformers, scored": ours("inference=transformers", "decoding=scored"),
    "LLMRouter": Contender(open=open_llmrouter),
    "pipeline": Contender(open=open_pipeline),
}


def count_work(task: Task, queries: Sequence[str], routed: Routed) -> tuple[int, float]:
    """Return the tokens of the prompts, and the floating-point operations of their routes that cannot be avoided."""
    config = json.loads((task.merged / "config.json").read_text())
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    layer_weights = layers * (2 * width**2 * (1 + key_heads / heads) + 3 * width * inner)
    prompts = [prompt.input_ids for prompt in task.encoder.encode_prompts(queries)]
    shared = count_shared(prompts)
    tokens, pairs = float(shared), shared**2 / 2
    for ids, more in zip(prompts, routed.new_tokens, strict=True):
        length = len(ids) + more
        tokens += length - shared
        pairs += (length - shared) * (length + shared) / 2
    # The head predicts a token at the end of each prompt, and after each new token.
    predicted = len(prompts) + sum(routed.new_tokens)
    operations = 2 * layer_weights * tokens + 2 * width * config["vocab_size"] * predicted + 4 * width * layers * pairs
    return sum(map(len, prompts)), operations


def used_cpu_seconds() -> float:
    """Return the processor time of this process and its children, of all cores: other processes change it little."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def peak_memory_gb() -> float:
    """Return the sum of the largest memory that this process and each of its children have had."""
    own = psutil.Process()
    files = [Path(f"/proc/{process.pid}/status").read_text() for process in (own, *own.children(recursive=True))]
    return sum(int(line.split()[1]) for file in files for line in file.splitlines() if line.startswith("VmHWM")) / 1e6


def print_row(row: dict[str, Any], first: dict[str, Any]) -> None:
    """Print the Markdown row of a contender: medians of its rounds, with speed as a ratio to the first one's."""
    if row is first:
        rate = f"products at {first['product_gflops']:,.0f} GFLOP/s"
        print(f"\nprompt={first['prompt']}, {first['format']}, rounds of {first['queries']} queries, {rate}\n")
        columns = ["contender", "queries/s", "ms per query", "prompt tokens/s", "ours is", "of limit", "same routes"]
        columns += ["CPU ms per query", "start-up s", "peak GB"]
        print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    rounds = range(len(row["seconds"]))
    seconds = statistics.median(row["seconds"])
    ratio = statistics.median(row["seconds"][one] / first["seconds"][one] for one in rounds)
    speed = statistics.median(row["prompt_tokens"][one] / row["seconds"][one] for one in rounds)
    share = statistics.median(row["limit_seconds"][one] / row["seconds"][one] for one in rounds)
    pairs = list(zip(row["routes"], first["routes"], strict=True))
    same = sum(one == other for one, other in pairs)
    queries, cpu = row["queries"], statistics.median(row["cpu_seconds"])
    print(
        f"| {row['contender']} | {queries / seconds:.1f} | {1000 * seconds / queries:.1f} | {speed:,.0f} "
        f"| {ratio:.1f}x | {share:.0%} | {same} of {len(pairs)} "
        f"| {1000 * cpu / queries:.0f} | {row['start_seconds']:.0f} | {row['peak_memory_gb']:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
