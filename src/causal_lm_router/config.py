"""The schema of every setting: types, documentation and checks.

YAML under `conf/` holds every value; the dataclasses here hold no defaults. `compose.py` puts the two together.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from causal_lm_router.routing import ParseMode
from causal_lm_router.targets import TargetKind


class BaseModelOrigin(StrEnum):
    """Where base model weights come from."""

    hub = "hub"
    packaged = "packaged"
    tiny = "tiny"


class Source(StrEnum):
    """The format routing data is read from."""

    llmrouter = "llmrouter"
    routerdc = "routerdc"
    routellm = "routellm"
    routerbench = "routerbench"
    jsonl = "jsonl"
    hub = "hub"
    simulated = "simulated"


class OnBadRow(StrEnum):
    """What happens to a row that cannot be used."""

    error = "error"
    skip = "skip"


class TieBreak(StrEnum):
    """Which of several best candidates becomes the label."""

    cheapest = "cheapest"
    best_on_train = "best_on_train"
    first = "first"
    random = "random"


class CutSide(StrEnum):
    """Which part of an over-long query is cut away."""

    left = "left"
    middle = "middle"


class ObjectiveKind(StrEnum):
    """What training makes likely."""

    completion = "completion"
    multi_positive = "multi_positive"
    soft = "soft"
    per_candidate = "per_candidate"


class DecodingMethod(StrEnum):
    """How a route is read out of the base model."""

    free = "free"
    constrained = "constrained"
    scored = "scored"
    trie = "trie"


class Normalisation(StrEnum):
    """What is done to the log-likelihoods of targets before they are compared."""

    sum = "sum"
    mean = "mean"
    prior = "prior"


class BaselineMethod(StrEnum):
    """A router to compare with."""

    random = "random"
    cheapest = "cheapest"
    most_expensive = "most_expensive"
    best_single = "best_single"
    per_task_best = "per_task_best"
    majority_label = "majority_label"
    knn_vote = "knn_vote"
    knn_regression = "knn_regression"
    svm = "svm"
    mlp = "mlp"
    matrix_factorisation = "matrix_factorisation"
    elo = "elo"
    encoder_classifier = "encoder_classifier"
    zero_shot = "zero_shot"
    few_shot = "few_shot"
    oracle = "oracle"
    cheapest_oracle = "cheapest_oracle"


class Schedule(StrEnum):
    """Shape of the learning rate after warm-up."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"


class Backend(StrEnum):
    """The library that generates."""

    vllm = "vllm"
    transformers = "transformers"


class Split(StrEnum):
    """A part of the data."""

    train = "train"
    validation = "validation"
    test = "test"


# In this form because `continue` is a keyword.
OnFailure = StrEnum("OnFailure", {"continue": "continue", "stop": "stop"})
"""What a sweep does after a job that failed."""


class WandbMode(StrEnum):
    """How W&B records: `auto` is online with a key and a reachable server, else offline."""

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


DTYPES = ("float32", "bfloat16", "float16")
NOT_IDENTITY = (
    "run_dir",
    "tracking",
    "sweep",
    "trainer.progress_bar",
    "trainer.log_every_n_steps",
    "trainer.checkpoint_every_n_steps",
)
"""Keys that no result depends on: where a run lies, who records it and how often, how its sweep goes on."""


def _require(condition: bool, key: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{key}={value!r}: allowed is {allowed}")


def _require_fraction(key: str, value: float) -> None:
    _require(0.0 <= value <= 1.0, key, value, "a number in 0..1")


@dataclass
class BaseModelConfig:
    name: str
    """Hub name or local folder of the base model; for `packaged` and `tiny` the name of its folder in the cache."""
    origin: BaseModelOrigin
    """`hub` (a hub name or a folder), `packaged` (GGUF in a Python package) or `tiny` (random, made on the spot)."""
    package: str | None
    """Python package that carries the GGUF file (`packaged` only)."""
    gguf_file: str | None
    """Glob of the GGUF file inside the package (`packaged` only)."""
    revision: str | None
    """Hub revision: a branch, tag or commit; None is the default branch."""
    dtype: str
    """Dtype of the base weights while training: `float32`, `bfloat16` or `float16`; adapter weights are float32."""
    attn_implementation: str
    """Attention kernel of transformers: `sdpa`, `eager`, `flash_attention_2`, ..."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory, about a third more time."""
    trust_remote_code: bool
    """Run code that comes with the weights."""

    def __post_init__(self) -> None:
        _require(bool(self.name.strip()), "base_model.name", self.name, "a hub name or a folder")
        _require(self.dtype in DTYPES, "base_model.dtype", self.dtype, " | ".join(DTYPES))
        if self.origin is BaseModelOrigin.packaged:
            _require(bool(self.package), "base_model.package", self.package, "a package name (origin=packaged)")
            _require(bool(self.gguf_file), "base_model.gguf_file", self.gguf_file, "a glob (origin=packaged)")


@dataclass
class LoraConfig:
    use_lora: bool
    """Train low-rank adapters; false trains all weights."""
    lora_r: int
    """Rank of the adapter matrices."""
    lora_alpha: int
    """Scale: updates are multiplied by alpha / r (alpha / sqrt(r) with rsLoRA)."""
    lora_dropout: float
    """Dropout on the adapter's input."""
    target_modules: list[str]
    """Names of the linear layers that get an adapter; [all-linear] means every linear layer but the head."""
    num_layers: int | None
    """Adapt only this many of the last layers, which spares the backward pass of the others; null adapts all."""
    use_rslora: bool
    """Rank-stabilised scaling (arXiv 2312.03732)."""
    use_dora: bool
    """Weight-decomposed LoRA (arXiv 2402.09353)."""
    merge_lora: bool
    """Also write the merged checkpoint, loadable by transformers and vLLM, at the end of training."""

    def __post_init__(self) -> None:
        _require(self.lora_r >= 1, "lora.lora_r", self.lora_r, "an integer of at least 1")
        _require(self.lora_alpha >= 1, "lora.lora_alpha", self.lora_alpha, "an integer of at least 1")
        _require(0.0 <= self.lora_dropout < 1.0, "lora.lora_dropout", self.lora_dropout, "a number in 0..1, below 1")
        some = self.num_layers is None or self.num_layers >= 1
        _require(some, "lora.num_layers", self.num_layers, "an integer of at least 1, or null")
        _require(bool(self.target_modules), "lora.target_modules", self.target_modules, "at least one name")


@dataclass
class SimulatedConfig:
    num_queries: int
    """How many queries to generate."""
    num_attempts: int
    """Graded attempts per candidate and query; the score is the share that succeeds."""
    discrimination: float
    """Slope of the item-response curve: how fast success falls as difficulty passes skill."""
    tasks: list[str]
    """reasoning-gym task types, each one of the built-in list; [] takes the whole list."""
    seed: int
    """Seed of queries and outcomes; apart from `seed`, so that runs with several seeds share one data set."""

    def __post_init__(self) -> None:
        _require(self.num_queries >= 30, "data.simulated.num_queries", self.num_queries, "an integer of at least 30")
        _require(self.num_attempts >= 1, "data.simulated.num_attempts", self.num_attempts, "an integer of at least 1")
        _require(self.discrimination > 0, "data.simulated.discrimination", self.discrimination, "a number above 0")
        _require(self.seed >= 0, "data.simulated.seed", self.seed, "an integer of at least 0")


@dataclass
class ColumnsConfig:
    query: str
    """Column of the query text."""
    task: str | None
    """Column of the task name; None puts all rows into one task."""
    query_id: str | None
    """Column of a unique id; None numbers the rows."""
    scores: dict[str, str]
    """Candidate name -> column of its score."""
    costs: dict[str, str]
    """Candidate name -> column of its cost in USD; {} means unknown."""


@dataclass
class DataConfig:
    source: Source
    """The format to read."""
    path: str | None
    """File or folder the source reads; relative paths start at the working directory."""
    files: str | None
    """Read only the files of the folder `path` whose names match this glob (routellm only)."""
    test_path: str | None
    """File or folder of the source's test split, where it is kept apart from `path`; matters with use_source_split."""
    pool_path: str | None
    """Pool file (LLMRouter's JSON: name -> prices, description); None looks beside the data."""
    query_path: str | None
    """LLMRouter's query file(s) (a file or a glob), joined on the query text for tasks; None looks beside the data."""
    hub_config: str | None
    """Configuration name for `datasets.load_dataset` (hub only)."""
    hub_split: str
    """Split expression for `datasets.load_dataset` (hub only)."""
    columns: ColumnsConfig
    """Column mapping (hub only)."""
    simulated: SimulatedConfig
    """Settings of the simulated source."""
    allow_pickle: bool
    """Allow unpickling a RouterBench file: unpickling runs code of the file's author."""
    drop_contaminated: bool
    """Leave out the prompts RouteLLM lists as too close to its training data (routellm only)."""
    on_bad_row: OnBadRow
    """`error` stops at the first unusable row, `skip` leaves it out, counts it and reports it."""
    max_query_chars: int
    """A longer query is a bad row."""
    use_source_split: bool
    """Take train and test from the source instead of splitting anew; validation is cut from train."""
    validation_fraction: float
    """Share of the queries held out for choosing settings."""
    test_fraction: float
    """Share of the queries held out for the final figures."""
    split_seed: int
    """Seed of the split; apart from `seed`, so that runs with several seeds share one test set."""
    max_train_queries: int | None
    """Use at most this many training queries, drawn with split_seed; None uses all."""
    near_duplicate_threshold: float
    """Jaccard similarity of character 5-gram sets above which two queries count as near-duplicates in the audit."""
    assumed_output_tokens: int | None
    """Estimate costs of sources with prices but no token counts: four characters a token in, this many tokens out.
    null leaves their costs unknown."""
    renamed_candidates: dict[str, str]
    """Old name -> new name of candidates: to evaluate a router on names that it was not trained on."""
    held_out_candidates: list[str]
    """Candidates left out of training: out of labels, objectives and listed candidates, but not out of the pool."""
    task_shrinkage: float
    """Teach scores drawn this far (0..1) towards the mean of their task on train: one answer to a query is a noisy
    sign of how well a candidate does on queries like it. Evaluation always counts the scores themselves."""
    cost_weight: float
    """A label is the candidate of the highest score - cost_weight * cost (USD): 0 looks at scores alone."""
    tie_break: TieBreak
    """Which of several best candidates becomes the label."""
    keep_undecided: bool
    """Keep training queries on which all candidates score the same."""

    def __post_init__(self) -> None:
        filters = self.files is None or self.source is Source.routellm
        _require(filters, "data.files", self.files, "null, but for data.source=routellm")
        _require_fraction("data.validation_fraction", self.validation_fraction)
        _require_fraction("data.test_fraction", self.test_fraction)
        held_out = self.validation_fraction + self.test_fraction
        _require(held_out < 1.0, "data.validation_fraction + data.test_fraction", held_out, "a sum below 1")
        _require_fraction("data.near_duplicate_threshold", self.near_duplicate_threshold)
        _require(self.max_query_chars >= 1, "data.max_query_chars", self.max_query_chars, "an integer of at least 1")
        tokens = self.assumed_output_tokens is None or self.assumed_output_tokens >= 0
        _require(tokens, "data.assumed_output_tokens", self.assumed_output_tokens, "an integer of at least 0, or null")
        _require_fraction("data.task_shrinkage", self.task_shrinkage)
        _require(self.cost_weight >= 0, "data.cost_weight", self.cost_weight, "a number of at least 0")
        few = self.max_train_queries is None or self.max_train_queries >= 1
        _require(few, "data.max_train_queries", self.max_train_queries, "an integer of at least 1, or null")


@dataclass
class PromptConfig:
    template: str
    """Text before the target: `{query}` once, `{candidates}` (the pool's names, comma-separated) at most once."""
    target: str
    """Text to generate: `{name}` with the white space before it. The end token is added by itself."""
    max_length: int
    """Tokens of prompt and target together; longer inputs lose part of the query, never instruction or target."""
    cut_side: CutSide
    """Which part of an over-long query is cut: its `left` (beginning) or its `middle`."""
    shuffle_seed: int | None
    """Seed of the candidates' order in `{candidates}`, drawn anew for every query; null lists them in pool order."""
    neutralise_markers: bool
    """Rewrite the prompt's own markers (such as `Best LLM:`) where they occur inside a query."""

    def __post_init__(self) -> None:
        _require(self.template.count("{query}") == 1, "prompt.template", self.template, "a text with {query} once")
        _require(
            self.template.count("{candidates}") <= 1, "prompt.template", self.template, "{candidates} at most once"
        )
        ends_bare = self.template == self.template.rstrip()
        _require(ends_bare, "prompt.template", self.template, "a text without white space at its end")
        _require(self.target.strip() == "{name}", "prompt.target", self.target, "{name} with white space around it")
        _require(self.max_length >= 16, "prompt.max_length", self.max_length, "an integer of at least 16")


@dataclass
class TargetConfig:
    kind: TargetKind
    """What stands for a candidate: its `name`, a letter (`short_id`), a new `token` with a trained embedding, or, for
    two candidates, a `score_class` of the weak one (RouteLLM)."""


@dataclass
class ObjectiveConfig:
    kind: ObjectiveKind
    """What training makes likely: the label (`completion`), any best candidate (`multi_positive`), candidates in the
    shares softmax(score / temperature) (`soft`), or each by its own score (`per_candidate`)."""
    temperature: float
    """tau of `soft`: the smaller, the more the best candidates count."""
    reference_offset: float
    """`per_candidate` reads the log-odds of a candidate's score from the log-likelihood of its target minus that of
    ending at once, minus this offset: the larger, the less likely a generation is to end without a name."""
    valid_weight: float
    """Weight, in `per_candidate`, of the negative log-probability of naming any candidate at all: what keeps free
    generations in the pool."""
    undecided_weight: float
    """Weight of the training queries on which all candidates score the same; others have 1."""

    def __post_init__(self) -> None:
        _require(self.temperature > 0, "objective.temperature", self.temperature, "a number above 0")
        for name in ("reference_offset", "valid_weight", "undecided_weight"):
            _require(getattr(self, name) >= 0, f"objective.{name}", getattr(self, name), "a number of at least 0")


@dataclass
class DecodingConfig:
    method: DecodingMethod
    """How the route is read: the text that is generated (`free`), the same under the constraint of the targets
    (`constrained`), the most likely whole target (`scored`), or a greedy walk over the targets' token trie (`trie`)."""
    also: list[DecodingMethod]
    """Further methods to evaluate at the end, each in a folder of its own; `free` always is."""
    normalisation: Normalisation
    """Of `scored`: `sum` of the tokens' log-probabilities, their `mean`, or the sum minus that after an empty query
    (`prior`)."""
    cost_weight: float
    """Of `scored`: route by predicted - cost_weight * mean cost (USD) of the candidate on train."""

    def __post_init__(self) -> None:
        _require(self.cost_weight >= 0, "decoding.cost_weight", self.cost_weight, "a number of at least 0")
        weighs = self.cost_weight == 0 or DecodingMethod.scored in (self.method, *self.also)
        _require(weighs, "decoding.cost_weight", self.cost_weight, "0, but for decoding.method=scored")


@dataclass
class OptimConfig:
    learning_rate: float
    """Peak learning rate of AdamW."""
    weight_decay: float
    """Decoupled weight decay."""
    adam_betas: list[float]
    """AdamW's two decay rates."""
    warmup_ratio: float
    """Share of all optimizer steps over which the learning rate rises from 0."""
    schedule: Schedule
    """Shape after warm-up."""
    max_grad_norm: float | None
    """Gradient norm to clip to; null does not clip."""

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, "optim.learning_rate", self.learning_rate, "a number above 0")
        _require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "a number of at least 0")
        good = len(self.adam_betas) == 2 and all(0 <= beta < 1 for beta in self.adam_betas)
        _require(good, "optim.adam_betas", self.adam_betas, "two numbers in 0..1, below 1")
        _require_fraction("optim.warmup_ratio", self.warmup_ratio)
        clips = self.max_grad_norm is None or self.max_grad_norm > 0
        _require(clips, "optim.max_grad_norm", self.max_grad_norm, "a number above 0, or null")


@dataclass
class TrainerConfig:
    num_epochs: int
    """Passes over the training queries."""
    batch_size: int
    """Queries per device and gradient accumulation."""
    accumulate_grad_batches: int
    """Batches per optimizer step; the loss is normalised over the whole step, so 1 x 8 equals 8 x 1."""
    max_tokens_per_batch: int
    """A batch is cut into micro-batches of at most this many tokens, padding included: bounds the memory."""
    precision: str
    """Lightning's precision: `32-true`, `bf16-mixed` or `bf16-true`."""
    accelerator: str
    """Lightning's accelerator: `auto`, `cpu`, `gpu`, ..."""
    devices: str
    """Lightning's devices: a number, a list such as `0,1`, or `auto`."""
    strategy: str
    """Lightning's strategy: `auto`, `ddp`, `ddp_spawn`, ..."""
    reuse_frozen_layers: bool
    """With lora.num_layers, compute the layers below the adapted ones once for every training row, and keep what they
    say in the cache: later epochs, seeds and objectives start from it."""
    num_threads: int | None
    """CPU threads of torch; null leaves torch's default. Fixed threads make CPU runs bitwise repeatable."""
    log_every_n_steps: int
    """Optimizer steps between logged training losses."""
    checkpoint_every_n_steps: int
    """Optimizer steps between resumable checkpoints; the last one is kept."""
    progress_bar: bool
    """Show a progress bar."""
    extra: dict[str, Any]
    """Any further argument of `pytorch_lightning.Trainer`."""

    def __post_init__(self) -> None:
        counts = ("num_epochs", "batch_size", "accumulate_grad_batches", "max_tokens_per_batch")
        for name in (*counts, "log_every_n_steps", "checkpoint_every_n_steps"):
            _require(getattr(self, name) >= 1, f"trainer.{name}", getattr(self, name), "an integer of at least 1")
        precisions = ("32-true", "bf16-mixed", "bf16-true")
        _require(self.precision in precisions, "trainer.precision", self.precision, " | ".join(precisions))
        fits = self.num_threads is None or self.num_threads >= 1
        _require(fits, "trainer.num_threads", self.num_threads, "an integer of at least 1, or null")


@dataclass
class InferenceConfig:
    backend: Backend
    """`vllm` or `transformers`."""
    tensor_parallel_size: int
    """GPUs vLLM splits the base model over."""
    max_new_tokens: int
    """Longest generation, in tokens."""
    temperature: float
    """Sampling temperature; 0 is greedy decoding."""
    top_p: float
    """Nucleus sampling: the share of probability sampled from."""
    seed: int
    """Seed of sampling."""
    dtype: str | None
    """Dtype of the weights while generating, and of the merged checkpoint; null takes `base_model.dtype`."""
    batch_size: int
    """Queries per batch of the transformers backend; vLLM schedules by itself."""
    engine_args: dict[str, Any]
    """Any further argument of `vllm.LLM`."""
    sampling_args: dict[str, Any]
    """Any further argument of `vllm.SamplingParams`, or of `generate` under transformers."""

    def __post_init__(self) -> None:
        for name in ("tensor_parallel_size", "max_new_tokens", "batch_size"):
            _require(getattr(self, name) >= 1, f"inference.{name}", getattr(self, name), "an integer of at least 1")
        known = self.dtype is None or self.dtype in DTYPES
        _require(known, "inference.dtype", self.dtype, f"null | {' | '.join(DTYPES)}")
        _require(self.temperature >= 0, "inference.temperature", self.temperature, "a number of at least 0")
        _require(0 < self.top_p <= 1, "inference.top_p", self.top_p, "a number in 0..1, above 0")


def generating_model(base_model: BaseModelConfig, inference: InferenceConfig) -> BaseModelConfig:
    """Return the base model's config with the dtype it generates in."""
    return replace(base_model, dtype=inference.dtype or base_model.dtype)


@dataclass
class ParsingConfig:
    mode: ParseMode
    """`strict`: the whole generation is a name; `lenient`: it starts with one; `fuzzy`: the nearest name."""
    fuzzy_threshold: float
    """Least similarity (rapidfuzz ratio, 0..100) of a fuzzy match."""
    fallback_candidate: str | None
    """Candidate to call after a parse failure; the failure still counts as wrong. null calls none."""

    def __post_init__(self) -> None:
        in_range = 0 <= self.fuzzy_threshold <= 100
        _require(in_range, "parsing.fuzzy_threshold", self.fuzzy_threshold, "a number in 0..100")


@dataclass
class EvaluationConfig:
    split: Split
    """Split of the evaluations during training."""
    max_queries: int | None
    """Evaluate at most this many queries during training, drawn with data.split_seed; null evaluates all."""
    every_n_epochs: int | None
    """Epochs between evaluations during training; null evaluates none at epoch ends."""
    every_n_steps: int | None
    """Optimizer steps between evaluations during training; null evaluates none by step."""
    final_split: Split
    """Split evaluated whole after training, for the run's report, and by the `evaluate` command."""
    final_validation: bool
    """Evaluate the whole validation split after training too, where it holds queries: what sweeps choose by."""

    def __post_init__(self) -> None:
        for name in ("max_queries", "every_n_epochs", "every_n_steps"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"evaluation.{name}", value, "an integer of at least 1, or null")


@dataclass
class WandbConfig:
    mode: WandbMode
    """`auto` records online with a key and a reachable server, else offline."""
    project: str
    """W&B project."""
    entity: str | None
    """W&B user or team; null is the key's own."""
    group: str | None
    """W&B group; null is the sweep's name for the jobs of a sweep, else none."""
    tags: list[str]
    """W&B tags."""
    log_adapter: bool
    """Record the adapter as an artifact."""
    init_timeout_s: int
    """Longest wait for the server before recording offline."""

    def __post_init__(self) -> None:
        short = 1 <= self.init_timeout_s <= 15
        _require(short, "tracking.wandb.init_timeout_s", self.init_timeout_s, "an integer in 1..15")


@dataclass
class TrackingConfig:
    wandb: WandbConfig
    """Weights & Biases."""
    tensorboard: bool
    """Write TensorBoard event files."""


@dataclass
class SweepConfig:
    name: str | None
    """Name of the sweep and of its folder; null takes `name`."""
    isolated: bool
    """Run each job in a process of its own: slower, but one that is killed costs only itself."""
    on_failure: OnFailure
    """After a failed job go on with the others (`continue`) or start no further one (`stop`)."""
    retry_failed: bool
    """Run jobs again that failed before; else they stay as they are."""
    allow_mixed: bool
    """Add to a sweep whose earlier jobs ran other code, or read other content from the same data."""
    report: bool
    """Write the sweep's report at its end."""
    trial: int | None
    """Number of the search's trial that the job is; the sweeper sets it."""

    def __post_init__(self) -> None:
        safe = self.name is None or re.fullmatch(r"[\w.-]*\w[\w.-]*", self.name) is not None
        _require(safe, "sweep.name", self.name, "a name of letters, digits, _, - and ., or null")


@dataclass
class BaselineConfig:
    method: BaselineMethod
    """The router to compare with."""
    embedding: str
    """What turns queries into vectors: `minilm` (all-MiniLM-L6-v2, from a Python package), or the hub name or folder of
    a sentence-transformers model. Longer queries are cut to its window (256 tokens for `minilm`)."""
    k: int
    """Neighbours of `knn_vote` and `knn_regression`."""
    svm_c: float
    """Inverse strength of the regularisation of `svm`."""
    mlp_hidden_units: int
    """Width of the hidden layer of `mlp`."""
    mlp_epochs: int
    """Passes of `mlp` over the training queries, at most: it stops when its loss no longer falls."""
    mf_rank: int
    """Size of the space in which `matrix_factorisation` places queries and candidates."""
    mf_epochs: int
    """Passes of `matrix_factorisation` over the training queries."""
    elo_gamma: float
    """How much more `elo` counts training queries that resemble the query: 1 counts all alike, which makes its ratings
    constant; 10 is RouteLLM's similarity-weighted ranking."""
    encoder_epochs: int
    """Passes of `encoder_classifier` over the training queries."""
    encoder_learning_rate: float
    """Peak learning rate of `encoder_classifier`."""
    encoder_max_tokens: int
    """`encoder_classifier` reads at most this many tokens of a query, and never more than the encoder's window."""
    num_shots: int
    """Training queries shown with their label by `few_shot`."""

    def __post_init__(self) -> None:
        _require(bool(self.embedding.strip()), "baseline.embedding", self.embedding, "minilm, a hub name or a folder")
        for name in ("k", "mlp_hidden_units", "mlp_epochs", "mf_rank", "mf_epochs", "encoder_epochs", "num_shots"):
            value = getattr(self, name)
            _require(value >= 1, f"baseline.{name}", value, "an integer of at least 1")
        for name in ("svm_c", "encoder_learning_rate"):
            _require(getattr(self, name) > 0, f"baseline.{name}", getattr(self, name), "a number above 0")
        _require(self.elo_gamma >= 1, "baseline.elo_gamma", self.elo_gamma, "a number of at least 1")
        tokens = self.encoder_max_tokens
        _require(tokens >= 8, "baseline.encoder_max_tokens", tokens, "an integer of at least 8")


@dataclass
class TrainConfig:
    name: str
    """Name of the experiment: the run folder's parent and the W&B run's name."""
    seed: int
    """Seed of initialisation, data order and dropout."""
    run_dir: str
    """The run folder."""
    base_model: BaseModelConfig
    """The LM being finetuned."""
    lora: LoraConfig
    """The adapter, or none."""
    data: DataConfig
    """What to route: source, split, labels."""
    prompt: PromptConfig
    """Query to prompt text, candidate to target text."""
    target: TargetConfig
    """What stands for a candidate."""
    objective: ObjectiveConfig
    """What training makes likely."""
    optim: OptimConfig
    """AdamW and its schedule."""
    trainer: TrainerConfig
    """Length and hardware of training."""
    inference: InferenceConfig
    """How text is generated."""
    decoding: DecodingConfig
    """How a route is read out of the base model."""
    parsing: ParsingConfig
    """Generated text to candidate."""
    evaluation: EvaluationConfig
    """What is evaluated, and when."""
    tracking: TrackingConfig
    """Where figures are recorded."""
    sweep: SweepConfig
    """What `--multirun` does with its jobs."""

    def __post_init__(self) -> None:
        safe = bool(self.name.strip(".")) and "/" not in self.name
        _require(safe, "name", self.name, "a name without /, and not of dots alone")
        has_frozen = not self.trainer.reuse_frozen_layers or (self.lora.use_lora and self.lora.num_layers is not None)
        _require(has_frozen, "trainer.reuse_frozen_layers", True, "false unless lora.num_layers leaves layers frozen")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "an integer in 0..2147483647")


@dataclass
class BaselineRunConfig(TrainConfig):
    """What the `baseline` command runs with: the settings of a router it compares with, and the baseline."""

    baseline: BaselineConfig
    """The baseline, under the same data, split and evaluation."""


@dataclass
class EvaluateConfig(TrainConfig):
    """A run's own config, with what the `evaluate` command adds."""

    output_dir: str
    """Folder of the report, outcomes and figures."""


@dataclass
class RouteConfig(TrainConfig):
    """A run's own config, with what the `route` command adds."""

    query: str | None
    """One query to route."""
    input: str | None
    """File of queries: .jsonl with a `query` key, else a query a line; - is standard input, a query a line."""
    output: str | None
    """JSONL file for the routes; null prints them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one = (self.query is None) != (self.input is None)
        _require(one, "query, input", (self.query, self.input), "exactly one of query=... and input=...")


@dataclass
class PrepareConfig:
    """What the `prepare` command needs."""

    base_model: BaseModelConfig
    """The LM being finetuned."""
