"""The model card of a trained router: what its weights are, how well they route, and how to load them."""

from pathlib import Path

from causal_lm_router.config import BaseModelOrigin, Split, TrainConfig
from causal_lm_router.data.prepared import PreparedData
from causal_lm_router.evaluation.formatting import (
    COST,
    PERCENT,
    REFERENCE_NAMES,
    SCORE,
    count,
    escape_markdown,
    explain_reference,
    format_estimate,
    markdown,
)
from causal_lm_router.evaluation.report import Reference, RoutingReport
from causal_lm_router.generation.vllm import LORA_RANKS
from causal_lm_router.models.hub import hub_name
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.routing import Candidate

PEFT_LIBRARY, WHOLE_LIBRARY = "library_name: peft", "library_name: transformers"
"""Lines of the front matter by which the hub tells an adapter from a whole checkpoint."""


def model_card(
    config: TrainConfig, data: PreparedData, encoder: Encoder, report: RoutingReport, split: Split, *, adapter: bool
) -> str:
    """Return the card as Markdown with the hub's front matter. It holds no path, time or name of the machine."""
    # Of a base model that the hub lacks the last part of its path: the rest is about this machine.
    base = hub_name(config.base_model) or Path(config.base_model.name).name
    sections = {
        "What it is": f"A router: {base}, finetuned to generate the name of the LLM in a pool that answers a query "
        f"best. The weights are {_weights(config, adapter=adapter)}. Trained with Causal LM Router.",
        "Base model": _base_model(config, encoder, base),
        "Pool": markdown([_candidate_row(candidate) for candidate in data.splits.pool])
        + "\n\nPrices are USD per million tokens.",
        "Prompt and target": _prompt_and_target(data, encoder),
        "Data": _data(config, data),
        "Results": _results(report, split),
        "How to load it": _loading(config, encoder, base, adapter=adapter),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"{_front_matter(config, base, adapter=adapter)}\n# {config.name}\n\n{body}\n"


def _front_matter(config: TrainConfig, base: str, *, adapter: bool) -> str:
    # The hub links a model to its base by this line, so it names only what the hub has.
    lines = [f"base_model: {base}"] if hub_name(config.base_model) else []
    lines += [PEFT_LIBRARY if adapter else WHOLE_LIBRARY, "pipeline_tag: text-generation", "tags:"]
    tags = ["llm-routing", "causal-lm-router", *(["lora"] if adapter else [])]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---", ""])


def _weights(config: TrainConfig, *, adapter: bool) -> str:
    if not adapter:
        return "a whole checkpoint: all weights were trained"
    lora = config.lora
    kind = "DoRA" if lora.use_dora else "rsLoRA" if lora.use_rslora else "LoRA"
    layers = "all layers" if lora.num_layers is None else f"the last {count(lora.num_layers, 'layer', 'layers')}"
    rank = f"rank {lora.lora_r} (alpha {lora.lora_alpha})"
    return f"a {kind} adapter of {rank} on {', '.join(lora.target_modules)} of {layers}"


def _base_model(config: TrainConfig, encoder: Encoder, base: str) -> str:
    revision = f" at revision `{config.base_model.revision}`" if config.base_model.revision else ""
    text = f"`{base}`{revision}."
    # What a reader could not know from the name alone.
    if config.base_model.origin is BaseModelOrigin.tiny:
        text += " A random model of two layers for smoke runs: it knows nothing."
    if config.base_model.origin is BaseModelOrigin.packaged:
        text += f" Trained on its weights as the Python package `{config.base_model.package}` has them in GGUF."
    if encoder.targets.new_tokens:
        text += (
            f" The vocabulary has {len(encoder.targets.new_tokens)} new tokens, which the base model on the hub lacks. "
            "Their rows come with the weights here, and the tokens with the tokenizer beside them."
        )
    return text


def _candidate_row(candidate: Candidate) -> dict[str, str]:
    prices = {"input price": candidate.input_price, "output price": candidate.output_price}
    return {"LLM": candidate.name} | {
        what: "unknown" if price is None else f"{price:g}" for what, price in prices.items()
    }


def _prompt_and_target(data: PreparedData, encoder: Encoder) -> str:
    # The shortest query shows the form best; the id makes the choice the same in every run.
    example = min(data.train, key=lambda one: (len(one.query), one.query_id))
    target = encoder.targets.texts[encoder.targets.number_of(example, data.labels[example.query_id])]
    return (
        f"The prompt of a query:\n\n{_code(encoder.format.template)}\n\n"
        "One from training, up to where the generation starts:\n\n"
        f"{_code(encoder.example_prompt(example.query, data.labels[example.query_id]))}\n\n"
        f"Its target, which the end token follows:\n\n{_code(target)}\n\n"
        f"A prompt has at most {encoder.max_prompt_tokens} tokens; of a longer one the query is cut."
    )


def _data(config: TrainConfig, data: PreparedData) -> str:
    splits = data.splits
    sizes = f"{count(len(data.train), 'query', 'queries')} to train on, {len(splits.validation):,} for validation, "
    return (
        f"Source `{config.data.source.value}`: {sizes}{len(splits.test):,} to test on. "
        f"Split seed {config.data.split_seed}, training seed {config.seed}."
    )


def _results(report: RoutingReport, split: Split) -> str:
    # The references show what a score is worth: between choosing blindly and always choosing the best.
    rows = [_result_row("the router", report, "")]
    for name, reference in report.references.items():
        rows.append(_result_row(REFERENCE_NAMES[name], reference, explain_reference(name, report.best_single)))
    failures = format_estimate(report.parse_failure_rate, PERCENT)
    # Quoted as Markdown does, so that they stand out before the numbers.
    warnings = "".join(f"> Warning: {escape_markdown(warning)}\n\n" for warning in report.warnings)
    return (
        f"{warnings}On {count(report.num_queries, 'query', 'queries')} of the {split.value} split, "
        f"with 95% intervals:\n\n"
        f"{markdown(rows)}\n\n"
        "Mean score: quality of the answers of the LLMs called, 0 to 1. Routing accuracy: share of queries sent to an "
        f"LLM that no other LLM beats on them. Parse failures, which count as wrong: {failures}."
    )


def _result_row(name: str, result: RoutingReport | Reference, explanation: str) -> dict[str, str]:
    return {
        "who chooses": f"{name} ({explanation})" if explanation else name,
        "mean score": format_estimate(result.mean_score, SCORE),
        "routing accuracy": format_estimate(result.routing_accuracy, PERCENT),
        "USD per 1,000 queries": format_estimate(result.mean_cost, COST),
    }


def _loading(config: TrainConfig, encoder: Encoder, base: str, *, adapter: bool) -> str:
    """Return code that loads the weights with each library; all of it takes the folder or the hub repository."""
    # The merge command makes an adapter whole. Weights that were all trained are whole already, in adapter/.
    whole = "path/to/merged" if adapter else "path/to/adapter"
    has_new_tokens = bool(encoder.targets.new_tokens)
    blocks = {"With Causal LM Router": _OURS}
    if adapter:
        blocks["With PEFT"] = _onto_base(base, config.base_model.revision, has_new_tokens=has_new_tokens)
    else:
        blocks["With transformers"] = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{whole}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{whole}")'
        )
    # vLLM serves plain LoRA; what it cannot serve it loads merged.
    if adapter and not has_new_tokens and not config.lora.use_dora:
        blocks["With vLLM"] = _served_adapter(base, config.lora.lora_r)
    else:
        blocks["With vLLM"] = f'from vllm import LLM\n\nllm = LLM("{whole}")'
    return "\n\n".join(f"{title}:\n\n{_code(code, 'python')}" for title, code in blocks.items())


_OURS = (
    "from causal_lm_router import CausalLMRouter\n\n"
    'with CausalLMRouter.from_run("path/to/run") as router:  # the run folder that holds adapter/\n'
    '    print(router.route_single({"query": "What is 17 times 23?"})["model_name"])'
)


def _onto_base(base: str, revision: str | None, *, has_new_tokens: bool) -> str:
    pinned = f', revision="{revision}"' if revision else ""
    lines = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("path/to/adapter")',
        f'model = AutoModelForCausalLM.from_pretrained("{base}"{pinned})',
    ]
    # The values of the rows do not matter, but many vocabularies have unused ones: those must stay.
    if has_new_tokens:
        lines += [
            "if len(tokenizer) > model.config.vocab_size:  # room for the new tokens, whose rows are in the adapter",
            "    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)",
        ]
    return "\n".join([*lines, 'model = PeftModel.from_pretrained(model, "path/to/adapter")'])


def _served_adapter(base: str, lora_r: int) -> str:
    # vLLM takes ranks in steps.
    rank = next((rank for rank in LORA_RANKS if rank >= lora_r), LORA_RANKS[-1])
    return (
        "from vllm import LLM, SamplingParams\nfrom vllm.lora.request import LoRARequest\n\n"
        f'llm = LLM("{base}", enable_lora=True, max_lora_rank={rank})\n'
        'lora = LoRARequest("router", 1, "path/to/adapter")\n'
        'outputs = llm.generate(["..."], SamplingParams(temperature=0, max_tokens=32), lora_request=lora)'
    )


def _code(text: str, language: str = "text") -> str:
    # A query may hold a fence of its own, so this one is longer.
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
