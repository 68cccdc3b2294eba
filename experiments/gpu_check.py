"""Whether everything that differs on a GPU works on this one, in under ten minutes and without network.

    python experiments/gpu_check.py [--stages train_bfloat16 adapters ...] [overrides of `causal-lm-router train`]
    python experiments/gpu_check.py --device cpu             # the same stages on a tiny base model and transformers

Trains SmolLM2-135M as the quickstart does, on simulated data. Each stage has a process of its own, so that one which
fails, crashes or hangs leaves the others their turn. Prints ok, failed or not run for each, with its time and what it
found, then speeds against the limit: the measured rate of matrix products. Exit status 0 where all that ran is ok, 1
where a stage failed, 2 where there is no GPU.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.compose import compose_config
from causal_lm_router.config.evaluation import Split
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.models.adapter import apply_lora
from causal_lm_router.models.base_model import load_base_model
from causal_lm_router.models.packed_rows import can_pack
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.session import Session, load_data, open_session
from causal_lm_router.runs.tracking import read_metrics
from causal_lm_router.runs.train_run import train_router
from causal_lm_router.runs.workbench import Workbench
from causal_lm_router.training.batches import StepLoader
from causal_lm_router.training.module import RouterModule
from causal_lm_router.training.rows import encode_examples
from causal_lm_router.training.trainer import make_trainer

SHARED = (
    "experiment=quickstart",
    "base_model.dtype=float32",
    "lora.merge_lora=false",
    "tracking=local",
    "trainer.progress_bar=false",
    "trainer.checkpoint_every_n_steps=5",
    "evaluation.every_n_steps=10",
    "evaluation.max_queries=40",
)
BY_DEVICE = {
    "gpu": ("trainer=gpu", "trainer.num_epochs=1", "trainer.batch_size=8", "data.max_train_queries=320"),
    "cpu": (
        "base_model=tiny",
        "inference=transformers",
        "data.max_train_queries=160",
        "data.simulated.num_queries=400",
    ),
}
FORMATS = {"bfloat16": "bf16-mixed", "float32": "32-true"}
"""Number format of the base model -> precision of the trainer."""
EQUAL_TEXTS = 0.8
"""Least share of texts that vLLM and transformers must generate alike: other weights give fewer, rounding costs few."""


@dataclass(kw_only=True)
class Finding:
    """What a stage found: a sentence, and speeds as shares of the limit."""

    says: str
    speeds: dict[str, str] = field(default_factory=dict)
    """What was measured -> the speed, with its share of the limit."""


class NotRunError(Exception):
    """Raised by a stage that this machine has no use for; the text says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What every stage gets."""

    device: str
    folder: Path
    overrides: tuple[str, ...]

    def config(self, name: str, *settings: str) -> TrainConfig:
        """Return the config of a run in a folder of this name."""
        run_dir = f"run_dir={self.folder / name}"
        return compose_config([*SHARED, *BY_DEVICE[self.device], *self.overrides, *settings, run_dir])

    def trained(self, *number_formats: str) -> list[RunFolder]:
        """Return the runs that earlier stages trained in these number formats."""
        runs = [RunFolder(self.folder / f"train_{one}") for one in number_formats]
        missing = [run.path.name for run in runs if not run.weights.is_dir()]
        if missing:
            raise NotRunError(f"needs {' and '.join(missing)}")
        return runs


def main() -> None:
    """Run the stages one after the other and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(BY_DEVICE), default="gpu")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), help=f"of {', '.join(STAGES)}")
    parser.add_argument(
        "--minutes", type=float, default=10, help="no stage goes on for longer than this from the start"
    )
    parser.add_argument("--folder", type=Path, help="where the runs are kept; default: a temporary folder")
    parser.add_argument("--alone", action="store_true", help="run one stage in this process")
    arguments, overrides = parser.parse_known_args()
    if arguments.device == "gpu" and not torch.cuda.is_available():
        print("gpu_check: this machine has no GPU; --device cpu runs the same stages on the CPU", file=sys.stderr)
        raise SystemExit(2)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        if arguments.alone:
            run_alone(Check(device=arguments.device, folder=folder, overrides=tuple(overrides)), arguments.stages[0])
            return
        describe_device(arguments.device)
        run_one = partial(run_in_process, arguments.device, folder, overrides)
        failed = run_stages(arguments.stages, run_one, 60 * arguments.minutes)
    raise SystemExit(int(failed))


def describe_device(device: str) -> None:
    """Print what the stages run on."""
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    on_cpu = f"the CPU, {torch.get_num_threads()} threads, tiny base model: this says nothing about GPUs"
    on_gpu = "; ".join(f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in cards)
    print(f"on {on_gpu if device == 'gpu' else on_cpu}\n", flush=True)


def run_stages(stages: Sequence[str], run_one: Callable[[str, float], tuple[str, Finding]], limit_s: float) -> bool:
    """Run the stages, print a row for each and the speeds at the end; return whether one failed.

    `run_one` takes a stage and the seconds that are left, and returns ok, failed or not run with what was found.
    """
    speeds: dict[str, str] = {}
    start, states = time.monotonic(), []
    for stage in stages:
        begin = time.monotonic()
        left = limit_s - (begin - start)
        state, finding = run_one(stage, left) if left > 0 else ("not run", Finding(says="the time was over"))
        states.append(state)
        speeds |= finding.speeds
        print(f"{stage:<18} {state:<8} {time.monotonic() - begin:5.0f} s  {finding.says}", flush=True)
    print(f"\n{states.count('ok')} ok, {states.count('failed')} failed, {states.count('not run')} not run\n")
    for name, speed in speeds.items():
        print(f"{name:<44} {speed}")
    return "failed" in states


def run_in_process(
    device: str, folder: Path, overrides: Sequence[str], stage: str, left_s: float
) -> tuple[str, Finding]:
    """Run a stage in a process of its own, which is ended where the time is over."""
    command = [sys.executable, __file__, "--alone", "--device", device, "--folder", str(folder), *overrides]
    # Without a card in sight, torch and vLLM take the CPU.
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    try:
        done = subprocess.run(
            [*command, "--stages", stage], capture_output=True, text=True, timeout=left_s, env={**os.environ, **hidden}
        )
    except subprocess.TimeoutExpired:
        return "failed", Finding(says=f"did not end within the {left_s:.0f} s that were left")
    if done.returncode == 0:
        state, finding = json.loads(done.stdout.splitlines()[-1])
        return state, Finding(**finding)
    (folder / f"{stage}.log").write_text(done.stdout + done.stderr)
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
    return "failed", Finding(says=f"status {done.returncode}: {last[:200]}")


def run_alone(check: Check, stage: str) -> None:
    """Run a stage and print its state and finding as the last line, as JSON."""
    check.folder.mkdir(parents=True, exist_ok=True)
    try:
        state, finding = "ok", STAGES[stage](check)
    except NotRunError as reason:
        state, finding = "not run", Finding(says=str(reason))
    print(json.dumps((state, asdict(finding))))
    sys.stdout.flush()


def limit(check: Check) -> Finding:
    """Measure the rates that bound every other speed."""
    products = {name: product_rate(check.device, name) / 1e12 for name in FORMATS}
    bandwidth = copy_rate(check.device) / 1e9
    speeds = {f"matrix products in {name}": f"{rate:.2f} TFLOP/s" for name, rate in products.items()}
    return Finding(says="measured", speeds=speeds | {"memory, read and written": f"{bandwidth:.0f} GB/s"})


def train(check: Check, number_format: str) -> Finding:
    """Train and evaluate: meanwhile the engine wakes and sleeps for every evaluation. Then time training alone."""
    precision = FORMATS[number_format]
    formats = [
        f"trainer.precision={precision}",
        f"base_model.dtype={number_format}",
        f"inference.dtype={number_format}",
    ]
    # Another seed for each format: their adapters are two that serving has to tell apart.
    config = check.config(f"train_{number_format}", *formats, f"seed={int(number_format == 'float32')}")
    steps: list[int] = []
    train_router(config, on_evaluation=lambda _, step: steps.append(step))
    losses = read_losses(RunFolder(Path(config.run_dir)))
    require(losses[max(losses)] < losses[min(losses)], f"the loss did not fall: {losses}")
    tokens_per_second, share = time_training(config, check.device, number_format)
    speed = f"{tokens_per_second:,.0f} tokens/s, {share:.1%} of the limit"
    says = f"loss {losses[min(losses)]:.2f} to {losses[max(losses)]:.2f}, {len(steps)} evaluations while training"
    return Finding(says=says + describe_peak(check.device), speeds={f"training in {number_format}": speed})


def adapters(check: Check) -> Finding:
    """Serve two adapters in turn from one engine that sleeps in between; the first one's texts must come back."""
    first, second = check.trained("bfloat16", "float32")
    with Workbench() as workbench, session_of(check, workbench, "adapters") as session:
        texts = [generate(session, run) for run in (first, second, first)]
        bare = generate(session, None)
        freed = sleep_and_measure(session, check.device)
        # An engine that sleeps is closed, and another one started in the same process.
        workbench.engine.close()
        again = generate(session, first)
        speed = time_routing(session, first, check.device)
    require(texts[0] == texts[2], "the first adapter's texts changed after the second one was served")
    require(texts[0] != bare, "the adapter's texts are those of the bare base model")
    require(texts[0] == again, "a new engine generates other texts")
    with Workbench() as workbench, session_of(check, workbench, "adapters", "inference=transformers") as session:
        plain = generate(session, first)
    equal = sum(a == b for a, b in zip(texts[0], plain, strict=True)) / len(plain)
    require(equal >= EQUAL_TEXTS, f"only {equal:.0%} of the texts are those of transformers")
    return Finding(
        says=f"{equal:.0%} of {len(plain)} texts as transformers has them{freed}",
        speeds={"routing, free decoding": speed},
    )


def decodings(check: Check) -> Finding:
    """Evaluate every decoding on the same weights; the walk over likelihoods must agree with constrained generation."""
    (run,) = check.trained("float32")
    with Workbench() as workbench, session_of(check, workbench, "decodings") as session:
        methods = [type(session.config.decoding.method)(name) for name in ("constrained", "trie", "scored")]
        found = session.evaluate(run.weights, session.data.examples(session.config.evaluation.split), also=methods)
    routes = {name: [outcome.route.candidate for outcome in one.outcomes] for name, one in found.others.items()}
    equal = sum(a == b for a, b in zip(routes["constrained"], routes["trie"], strict=True)) / len(routes["trie"])
    require(equal >= EQUAL_TEXTS, f"only {equal:.0%} of the routes of trie are those of constrained")
    return Finding(says=f"{equal:.0%} of {len(routes['trie'])} routes of trie as constrained has them; scored ran")


def merged(check: Check) -> Finding:
    """Train new tokens, which are served merged: each evaluation reloads the weights into the running engine."""
    report = train_router(check.config("merged", "target=token", "trainer.num_epochs=2"))
    assert report is not None, "the only process is the first"
    failures = report.parse_failure_rate.value
    # Weights that did not reach the engine know no new token, and name no LLM.
    require(check.device == "cpu" or failures < 1 - EQUAL_TEXTS, f"{failures:.0%} parse failures after merging")
    return Finding(says=f"{failures:.0%} parse failures with merged weights")


class InterruptionError(Exception):
    """Ends a training in the middle."""


def resume(check: Check) -> Finding:
    """Interrupt a training at an evaluation, go on from its checkpoint, and compare with the one that went through."""
    (whole,) = check.trained("float32")
    formats = ["trainer.precision=32-true", "inference.dtype=float32", "seed=1"]
    config = check.config("resume", *formats)

    def interrupt(report: RoutingReport, step: int) -> None:
        raise InterruptionError

    try:
        train_router(config, on_evaluation=interrupt)
    except InterruptionError:
        train_router(config)
    else:
        raise AssertionError("no evaluation came that could be interrupted")
    expected, found = read_losses(whole), read_losses(RunFolder(Path(config.run_dir)))
    worst = max(abs(found[step] - expected[step]) / expected[step] for step in expected)
    require(found.keys() == expected.keys() and worst < 1e-2, f"losses differ by up to {worst:.1e}")
    return Finding(says=f"losses as without the interruption, to {worst:.0e} of their value")


def tensor_parallel(check: Check) -> Finding:
    """Split the base model over two cards; the texts must be those of one card."""
    if torch.cuda.device_count() < 2:
        raise NotRunError(f"needs two GPUs, here are {torch.cuda.device_count()}")
    (run,) = check.trained("float32")
    texts = []
    for size in (1, 2):
        settings = (f"inference.tensor_parallel_size={size}", "inference.engine_args.gpu_memory_utilization=0.5")
        with Workbench() as workbench, session_of(check, workbench, "parallel", *settings) as session:
            texts.append(generate(session, run))
    equal = sum(a == b for a, b in zip(*texts, strict=True)) / len(texts[0])
    require(equal >= EQUAL_TEXTS, f"only {equal:.0%} of the texts are those of one GPU")
    return Finding(says=f"{equal:.0%} of {len(texts[0])} texts as on one GPU")


def ddp(check: Check) -> Finding:
    """Train on two processes by the command; the losses must be those of one process with the same rows a step."""
    if check.device == "gpu" and torch.cuda.device_count() < 2:
        raise NotRunError(f"needs two GPUs, here are {torch.cuda.device_count()}")
    (whole,) = check.trained("float32")
    two = ["trainer.strategy=ddp", "trainer.devices=2", "trainer.batch_size=4", "trainer.precision=32-true"]
    run = RunFolder(check.folder / "ddp")
    given = [*SHARED, *BY_DEVICE[check.device], *check.overrides, *two, "inference.dtype=float32", "seed=1"]
    command = [sys.executable, "-m", "causal_lm_router.commands.train", *given, f"run_dir={run.path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    require(done.returncode == 0, f"training ended with {done.returncode}: {done.stderr[-300:]}")
    expected, found = read_losses(whole), read_losses(run)
    worst = max(abs(found[step] - expected[step]) / expected[step] for step in expected)
    require(worst < 1e-2, f"losses differ from those of one process by up to {worst:.1e}")
    return Finding(says=f"losses as in one process, to {worst:.0e} of their value")


STAGES: dict[str, Callable[[Check], Finding]] = {
    "limit": limit,
    "train_bfloat16": partial(train, number_format="bfloat16"),
    "train_float32": partial(train, number_format="float32"),
    "adapters": adapters,
    "decodings": decodings,
    "resume": resume,
    "merged": merged,
    "tensor_parallel": tensor_parallel,
    "ddp": ddp,
}


def session_of(check: Check, workbench: Workbench, name: str, *settings: str) -> AbstractContextManager[Session]:
    """Open a session in float32, in which rounding changes the fewest texts; its weights come later."""
    config = check.config(name, "inference.dtype=float32", *settings)
    return open_session(config, RunFolder(Path(config.run_dir)), load_data(config.data, workbench), workbench)


def generate(session: Session, run: RunFolder | None) -> list[str]:
    """Return what the weights of a run (None: the base model) generate for the validation queries; then it sleeps."""
    examples = session.data.examples(session.config.evaluation.split)
    found = session.evaluate(run.weights if run else None, examples)
    return [outcome.generation.text for outcome in found.outcomes]


def sleep_and_measure(session: Session, device: str) -> str:
    """Say how much of the card's memory a sleeping engine gives back; it is awake before, and asleep afterwards."""
    if device == "cpu":
        return ""
    session.generator.load_weights(None)
    awake = torch.cuda.mem_get_info()[0]
    session.generator.sleep()
    asleep = torch.cuda.mem_get_info()[0]
    require(asleep > awake, "sleep gave no memory back")
    return f", sleep gives back {(asleep - awake) / 2**30:.1f} GiB"


def time_training(config: TrainConfig, device: str, number_format: str) -> tuple[float, float]:
    """Return tokens per second of an epoch without evaluations, and the share of the limit that it reaches."""
    with Workbench() as workbench:
        data = load_data(config.data, workbench)
        with open_session(config, RunFolder(Path(config.run_dir)), data, workbench) as session:
            rows = encode_examples(data.train, data.labels, session.encoder, Path(config.run_dir))
            model = apply_lora(load_base_model(session.source, session.config.base_model), config.lora, 0).train()
            # The first epoch makes the kernels.
            seconds = [fit_once(session, rows, model) for _ in range(2)][-1]
    tokens, labels = sum(rows["num_tokens"][:]), sum(rows["num_target_tokens"][:])
    trained = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
    operations = (4 * layer_weights(model) + 6 * trained) * tokens + 4 * head_weights(model) * labels
    return tokens / seconds, operations / seconds / product_rate(device, number_format)


def fit_once(session: Session, rows: Any, model: torch.nn.Module) -> float:
    """Train for an epoch and return the seconds it took."""
    settings, config = session.config.trainer, session.config
    trainer = make_trainer(settings, Path(config.run_dir), [])
    pad = session.encoder.tokenizer.pad_token_id
    max_tokens, packs = settings.max_tokens_per_batch, can_pack(model, config.prompt.max_length)
    loader = StepLoader(rows, pad, settings.batch_size, max_tokens, config.seed, trainer, packs=packs)
    module = RouterModule(model, config.optim, len(loader), config.seed, settings.log_every_n_steps)
    start = time.perf_counter()
    trainer.fit(module, train_dataloaders=loader)
    return time.perf_counter() - start


def time_routing(session: Session, run: RunFolder, device: str) -> str:
    """Say how fast the test queries are routed, with the share of the limit.

    The limit: 2 operations per weight and prompt token (a beginning that all share once), then every weight read once
    for each token of the longest generation.
    """
    prompts = [
        one.input_ids
        for one in session.encoder.encode_prompts([row.query for row in session.data.examples(Split.test)])
    ]
    session.generator.load_weights(run.weights)
    start = time.perf_counter()
    found = session.generator.generate(prompts, session.encoder.stop_ids)
    seconds = time.perf_counter() - start
    model = load_base_model(session.source, session.config.base_model)
    shared = sum(1 for _ in itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(*prompts, strict=False)))
    tokens = shared + sum(len(prompt) - shared for prompt in prompts)
    num_bytes = 4 * (layer_weights(model) + head_weights(model))
    least = 2 * layer_weights(model) * tokens / product_rate(device, "float32")
    least += max(one.num_tokens for one in found) * num_bytes / copy_rate(device)
    return f"{len(prompts) / seconds:,.0f} queries/s, {least / seconds:.1%} of the limit"


def layer_weights(model: Any) -> int:
    """Return how many frozen weights the layers have."""
    return sum(p.numel() for name, p in model.named_parameters() if ".layers." in name and "lora_" not in name)


def head_weights(model: Any) -> int:
    """Return how many weights the head has."""
    return int(model.get_output_embeddings().weight.numel())


def product_rate(device: str, number_format: str) -> float:
    """Return the floating-point operations per second of a large matrix product: the best of 10."""
    size, where = (8192, "cuda") if device == "gpu" else (1024, "cpu")
    left = torch.randn(size, size, device=where, dtype=getattr(torch, number_format))
    return 2 * size**3 / best_seconds(lambda: left @ left, device)


def copy_rate(device: str) -> float:
    """Return the bytes per second that are read and written when a large tensor is copied: the best of 10."""
    size, where = (1 << 30, "cuda") if device == "gpu" else (1 << 27, "cpu")
    source = torch.zeros(size, dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    return 2 * size / best_seconds(lambda: target.copy_(source), device)


def best_seconds(work: Callable[[], object], device: str, repeats: int = 10) -> float:
    """Return the shortest time that a piece of work took, after a first time that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device == "gpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def read_losses(run: RunFolder) -> dict[int, float]:
    """Return the training loss of every step that was recorded."""
    return {row.step: row.value for row in read_metrics(run.metrics) if row.name == "train/loss"}


def describe_peak(device: str) -> str:
    """Say how much of the card's memory torch had at most."""
    return f", {torch.cuda.max_memory_reserved() / 2**30:.1f} GiB at most" if device == "gpu" else ""


def require(holds: bool, what: str) -> None:
    """Fail the stage, with what is wrong, where something does not hold."""
    if not holds:
        raise AssertionError(what)


if __name__ == "__main__":
    main()
