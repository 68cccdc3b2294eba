"""How fast a training step is: against the machine's matrix products, and against the usual recipe.

    python experiments/train_speed.py [--queries 256] [overrides of `causal-lm-router train` ...]

The same base model, adapter and queries are trained for one epoch by (a) this project and (b) transformers' Trainer set
up as LLMRouter's causal-LM router sets it up: every row padded to `prompt.max_length`, the loss over all positions,
fixed batches of `trainer.batch_size`. The limit is 4 x active parameters x tokens floating-point operations (forward,
and backward without weight gradients) at the rate of a 2048 x 2048 float32 matrix product. Prints one row each.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.compose import compose_config
from causal_lm_router.data.prepared import PreparedData, prepare_data
from causal_lm_router.models.adapter import apply_lora
from causal_lm_router.models.base_model import load_base_model, load_tokenizer, prepare_base_model
from causal_lm_router.models.packed_rows import can_pack
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.runs.session import run_targets
from causal_lm_router.training.batches import StepLoader
from causal_lm_router.training.module import RouterModule
from causal_lm_router.training.rows import encode_examples
from causal_lm_router.training.trainer import make_trainer


def main() -> None:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=256)
    arguments, overrides = parser.parse_known_args()
    limit = f"data.max_train_queries={arguments.queries}"
    with tempfile.TemporaryDirectory() as folder:
        config = compose_config(
            ["experiment=quickstart", "trainer.precision=32-true", limit, *overrides, f"run_dir={folder}"]
        )
        data = prepare_data(config.data)
        base = prepare_base_model(config.base_model)
        targets = run_targets(config, data.candidate_names, data.best_single)
        encoder = Encoder(load_tokenizer(base, config.base_model), config.prompt, targets)
        num_tokens, ours = time_ours(config, data, base, encoder, folder)
        usual = time_usual(config, data, base, encoder, folder)
    active = active_parameters(base, config)
    limit_seconds = 4 * active * num_tokens / matrix_product_rate()
    print(f"{len(data.train)} queries, {num_tokens} tokens, {active / 1e6:.1f}M active parameters")
    for name, seconds in (("this project", ours), ("usual recipe", usual), ("matrix-product limit", limit_seconds)):
        print(f"{name:<22}{seconds:8.1f} s {num_tokens / seconds:8.0f} tokens/s   x {usual / seconds:.2f}")


def time_ours(config: TrainConfig, data: PreparedData, base: str, encoder: Encoder, folder: str) -> tuple[int, float]:
    """Return the number of tokens and the seconds of one epoch of ours."""
    rows = encode_examples(data.train, data.labels, encoder, Path(folder))
    model = apply_lora(load_base_model(base, config.base_model), config.lora, config.seed).train()
    trainer = make_trainer(config.trainer, Path(folder), [])
    per_step = config.trainer.batch_size * config.trainer.accumulate_grad_batches
    pad = encoder.tokenizer.pad_token_id
    max_tokens, packs = config.trainer.max_tokens_per_batch, can_pack(model, config.prompt.max_length)
    loader = StepLoader(rows, pad, per_step, max_tokens, config.seed, trainer, packs=packs)
    module = RouterModule(model, config.optim, len(loader), config.seed, config.trainer.log_every_n_steps)
    start = time.perf_counter()
    trainer.fit(module, train_dataloaders=loader)
    return sum(rows["num_tokens"][:]), time.perf_counter() - start


def time_usual(config: TrainConfig, data: PreparedData, base: str, encoder: Encoder, folder: str) -> float:
    """Return the seconds of one epoch of the usual recipe."""
    texts = [
        encoder.format.prompt_text(example.query)
        + encoder.targets.texts[data.candidate_names.index(data.labels[example.query_id])]
        for example in data.train
    ]
    length = config.prompt.max_length
    encoded = encoder.tokenizer(texts, truncation=True, max_length=length, padding="max_length")["input_ids"]
    model = apply_lora(load_base_model(base, config.base_model), config.lora, config.seed)
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=config.trainer.batch_size,
        learning_rate=config.optim.learning_rate,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    collator = DataCollatorForLanguageModeling(encoder.tokenizer, mlm=False)
    trainer = Trainer(model, arguments, collator, train_dataset=[{"input_ids": ids} for ids in encoded])
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def active_parameters(base: str, config: TrainConfig) -> int:
    """Return how many parameters every token passes through: all but the embedding table."""
    model = load_base_model(base, config.base_model)
    return sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()


def matrix_product_rate(size: int = 2048, repeats: int = 20) -> float:
    """Return the floating-point operations per second of float32 matrix products."""
    left = torch.randn(size, size)
    left @ left
    start = time.perf_counter()
    for _ in range(repeats):
        left @ left
    return repeats * 2 * size**3 / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
