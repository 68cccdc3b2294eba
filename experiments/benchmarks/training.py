"""Training speed and memory against LLMRouter's trainer, transformers' Trainer with PEFT, TRL, and the machine's limit.

    make bench DATA=path/to/llmrouter       # makes an environment with the peers, and runs this script in it
    python experiments/benchmarks/training.py experiment=llmrouter_cpu data.path=path/to/llmrouter [--queries 96]

Every contender trains SmolLM2-135M with the same adapter for one epoch on the same queries and labels, once for each
prompt and number format, each in a process of its own; peers compute 8 rows at a time and accumulate gradients. Time is
that of the training loop alone. `limit` is the time that the floating-point operations that cannot be avoided take at
the measured rate of a matrix product: 4 per weight of the layers and token, 4 per weight of the head and label, 6 per
adapter weight and token, and attention; padding counts for nothing, a beginning that all prompts of a micro-batch share
counts once. Prints tables; --output is a folder for them and for JSON.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.compose import compose_config
from causal_lm_router.data.prepared import PreparedData, prepare_data
from causal_lm_router.models.adapter import apply_lora
from causal_lm_router.models.base_model import load_base_model, load_tokenizer, prepare_base_model
from causal_lm_router.models.fast_products import onednn_linear
from causal_lm_router.models.packed_rows import can_pack
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.runs.session import run_targets
from causal_lm_router.training.batches import StepLoader
from causal_lm_router.training.module import RouterModule
from causal_lm_router.training.objective import completion_loss
from causal_lm_router.training.rows import encode_examples
from causal_lm_router.training.trainer import make_trainer

PROMPTS = ("seed", "candidates")
PEER_ROWS = 8
"""Rows that a peer computes at a time: 16 rows of Trainer + PEFT need more than 24 GB in float32."""
FORMATS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
"""Number format of the base weights -> precision of the Trainer."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every contender gets: the composed config, data, encoder, and the folder of the base model."""

    config: TrainConfig
    data: PreparedData
    encoder: Encoder
    base: str
    folder: Path

    @property
    def is_half(self) -> bool:
        """True where training is in bfloat16."""
        return self.config.trainer.precision != "32-true"

    def texts(self) -> list[tuple[str, str]]:
        """Return prompt and target of every training query."""
        targets, names = self.encoder.targets.texts, self.data.candidate_names
        return [
            (self.encoder.format.prompt_text(example.query), targets[names.index(self.data.labels[example.query_id])])
            for example in self.data.train
        ]

    def model(self) -> Any:
        """Return the base model with a fresh adapter."""
        model = load_base_model(self.base, self.config.base_model)
        return apply_lora(model, self.config.lora, self.config.seed).train()


def main() -> None:
    """Measure every contender and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16, help="queries of an optimizer step, a multiple of 8")
    parser.add_argument("--prompts", nargs="*", default=PROMPTS)
    parser.add_argument("--formats", nargs="*", default=list(FORMATS))
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--output", type=Path, help="folder for training.json and training.md")
    parser.add_argument("--alone", action="store_true", help="measure one contender in this process")
    arguments, overrides = parser.parse_known_args()
    if arguments.alone:
        print(json.dumps(measure(arguments, overrides)))
        return
    results = []
    for prompt in arguments.prompts:
        for number_format in arguments.formats:
            rows = [
                run_alone(arguments, overrides, prompt, number_format, contender) for contender in arguments.contenders
            ]
            results += rows
            # As they come: the whole takes minutes.
            print(make_table(rows), flush=True)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "training.json").write_text(json.dumps(results, indent=2) + "\n")
        (arguments.output / "training.md").write_text(make_table(results))


def run_alone(
    arguments: argparse.Namespace, overrides: list[str], prompt: str, number_format: str, contender: str
) -> dict[str, Any]:
    """Return the result of one contender, measured in a process of its own."""
    one = ["--alone", "--prompts", prompt, "--formats", number_format, "--contenders", contender]
    sizes = ["--queries", str(arguments.queries), "--batch", str(arguments.batch)]
    done = subprocess.run([sys.executable, __file__, *one, *sizes, *overrides], capture_output=True, text=True)
    if done.returncode:
        # A process that ran out of memory is killed without a word.
        raise SystemExit(f"{contender}: ended with status {done.returncode} {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(arguments: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Return what one contender took in this process."""
    (prompt,), (number_format,), (contender,) = arguments.prompts, arguments.formats, arguments.contenders
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(Path(folder), prompt, number_format, arguments.queries, arguments.batch, overrides)
        before = peak_memory_gb()
        seconds = CONTENDERS[contender](task)
        peak = peak_memory_gb()
        tokens, operations = count_work(task)
    rate = product_rate(getattr(torch, number_format))
    return {
        "contender": contender,
        "prompt": prompt,
        "format": number_format,
        "queries": len(task.data.train),
        "tokens": tokens,
        "seconds": seconds,
        "limit_seconds": operations / rate,
        "product_gflops": rate / 1e9,
        "peak_memory_gb": peak,
        "memory_before_gb": before,
        "threads": torch.get_num_threads(),
    }


def make_task(
    folder: Path, prompt: str, number_format: str, num_queries: int, batch_size: int, overrides: list[str]
) -> Task:
    """Return the task of a prompt and a number format."""
    settings = [
        f"prompt={prompt}",
        "prompt.max_length=512",
        f"base_model.dtype={number_format}",
        f"trainer.precision={FORMATS[number_format]}",
        f"trainer.batch_size={batch_size}",
        "trainer.max_tokens_per_batch=2048",
        f"data.max_train_queries={num_queries}",
        f"run_dir={folder}",
    ]
    config = compose_config([*settings, *overrides])
    data = prepare_data(config.data)
    base = prepare_base_model(config.base_model)
    targets = run_targets(config, data.candidate_names, data.best_single)
    encoder = Encoder(load_tokenizer(base, config.base_model), config.prompt, targets)
    return Task(config=config, data=data, encoder=encoder, base=base, folder=folder)


def train_ours(task: Task) -> float:
    """Train as the `train` command does."""
    config = task.config
    rows = encode_examples(task.data.train, task.data.labels, task.encoder, task.folder)
    trainer = make_trainer(config.trainer, task.folder, [])
    pad = task.encoder.tokenizer.pad_token_id
    settings = config.trainer
    model, max_tokens = task.model(), settings.max_tokens_per_batch
    packs = can_pack(model, config.prompt.max_length)
    loader = StepLoader(rows, pad, settings.batch_size, max_tokens, config.seed, trainer, packs=packs)
    module = RouterModule(model, config.optim, len(loader), config.seed, settings.log_every_n_steps, completion_loss)
    return timed(lambda: trainer.fit(module, train_dataloaders=loader))


def train_llmrouter(task: Task) -> float:
    """Train by LLMRouter's own class: rows padded to 512, loss over all positions, no bfloat16 on a CPU."""
    from llmrouter.models.causallm_router import trainer as llmrouter
    from transformers import TrainingArguments

    # It is written for transformers 4; version 5 has no such argument.
    llmrouter.TrainingArguments = lambda warmup_ratio, **others: TrainingArguments(**others)
    config = task.config
    hparam = {
        "base_model": task.base,
        "lora_r": config.lora.lora_r,
        "lora_alpha": config.lora.lora_alpha,
        "lora_dropout": config.lora.lora_dropout,
        "lora_target_modules": list(config.lora.target_modules),
        "num_epochs": 1,
        "batch_size": PEER_ROWS,
        "gradient_accumulation_steps": config.trainer.batch_size // PEER_ROWS,
        "max_length": config.prompt.max_length,
        "merge_lora": False,
    }

    texts = [{"full_text": prompt + target} for prompt, target in task.texts()]
    # What the trainer asks of LLMRouter's router.
    router = SimpleNamespace(
        cfg={"hparam": hparam, "model_path": {"save_model_path": str(task.folder / "llmrouter")}},
        get_training_data=lambda: texts,
    )
    trainer = llmrouter.CausalLMTrainer(router, device="cpu")
    return timed(trainer.train)


def train_peft(task: Task) -> float:
    """Train by transformers' Trainer with PEFT: labels on the target alone, batches padded to their longest row."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = task.encoder.tokenizer
    rows = []
    for prompt, target in task.texts():
        prompt_ids, target_ids = tokenizer(prompt)["input_ids"], tokenizer(target + tokenizer.eos_token)["input_ids"]
        labels = [-100] * len(prompt_ids) + target_ids
        rows.append({"input_ids": prompt_ids + target_ids, "labels": labels})
    collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
    arguments = TrainingArguments(**trainer_arguments(task), train_sampling_strategy="random")
    trainer = Trainer(task.model(), arguments, collator, train_dataset=rows)
    return timed(trainer.train)


def train_trl(task: Task) -> float:
    """Train by TRL's SFTTrainer on prompts and completions."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"prompt": prompt, "completion": target} for prompt, target in task.texts()])
    length = task.config.prompt.max_length
    arguments = SFTConfig(**trainer_arguments(task), max_length=length, gradient_checkpointing=False)
    trainer = SFTTrainer(task.model(), arguments, train_dataset=rows, processing_class=task.encoder.tokenizer)
    return timed(trainer.train)


CONTENDERS: dict[str, Callable[[Task], float]] = {
    "ours": train_ours,
    "Trainer + PEFT": train_peft,
    "TRL": train_trl,
    "LLMRouter": train_llmrouter,
}


def trainer_arguments(task: Task) -> dict[str, Any]:
    """Return what transformers' trainers are told."""
    return {
        "output_dir": str(task.folder / "trainer"),
        "num_train_epochs": 1,
        "per_device_train_batch_size": PEER_ROWS,
        "gradient_accumulation_steps": task.config.trainer.batch_size // PEER_ROWS,
        "learning_rate": task.config.optim.learning_rate,
        "bf16": task.is_half,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def timed(train: Callable[[], Any]) -> float:
    """Return how long a call took, in seconds."""
    start = time.perf_counter()
    train()
    return time.perf_counter() - start


def count_work(task: Task) -> tuple[int, float]:
    """Return the tokens of all rows, and the floating-point operations of an epoch that cannot be avoided."""
    config, encoder = task.config, task.encoder
    rows = encode_examples(task.data.train, task.data.labels, encoder, task.folder)
    model = task.model()
    layer_weights = sum(p.numel() for n, p in model.named_parameters() if ".layers." in n and not p.requires_grad)
    adapter_weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head_weights = model.get_output_embeddings().weight.numel()
    width = model.config.num_attention_heads * model.config.head_dim
    loader = StepLoader(
        rows,
        encoder.tokenizer.pad_token_id,
        config.trainer.batch_size,
        config.trainer.max_tokens_per_batch,
        config.seed,
        make_trainer(config.trainer, task.folder, []),
        packs=True,
    )
    operations = 0.0
    for step in loader:
        for batch in step.micro_batches:
            ids = [row[mask.bool()].tolist() for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
            shared = count_shared(ids)
            tokens = shared + sum(len(row) - shared for row in ids)
            pairs = shared**2 / 2 + sum((len(row) - shared) * (len(row) + shared) / 2 for row in ids)
            num_labels = int((batch.labels >= 0).sum())
            operations += (4 * layer_weights + 6 * adapter_weights) * tokens + 4 * head_weights * num_labels
            # Scores and their sums: two products forward, four backward.
            operations += 12 * width * pairs * model.config.num_hidden_layers
    return sum(rows["num_tokens"][:]), operations


def count_shared(rows: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all rows begin with; 0 where there is one row alone."""
    columns = zip(*rows, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns)) if len(rows) > 1 else 0


def product_rate(dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a product of SmolLM2's shapes: the best of 20.

    In float32 it is that of the faster library, so a machine that PyTorch does not use well has a higher limit.
    """
    left, right = torch.randn(2048, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    libraries = [torch.nn.functional.linear, *([onednn_linear] if dtype is torch.float32 else [])]
    best = min(timed(partial(multiply, left, right)) for multiply in libraries for _ in range(21))
    return float(2 * 2048 * 576 * 1536 / best)


def peak_memory_gb() -> float:
    """Return the largest memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def make_table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table of all results, with the time of each contender over that of the first in its group."""
    lines = [
        "| prompt | format | contender | s per query | tokens/s | ours is | of the limit | peak GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    first: dict[tuple[str, str], float] = {}
    for row in results:
        ours = first.setdefault((row["prompt"], row["format"]), row["seconds"])
        numbers = [
            f"{row['seconds'] / row['queries']:.2f}",
            f"{row['tokens'] / row['seconds']:.0f}",
            f"{row['seconds'] / ours:.1f}x",
            f"{row['limit_seconds'] / row['seconds']:.0%}",
            f"{row['peak_memory_gb']:.1f}",
        ]
        lines.append(f"| {' | '.join([row['prompt'], row['format'], row['contender'], *numbers])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
