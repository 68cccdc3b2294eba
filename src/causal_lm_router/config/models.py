"""Settings of the groups `base_model` and `lora`."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import AUTO, DTYPES, Settings, check, check_file_name, one_of


class BaseModelOrigin(StrEnum):
    """Where base model weights come from."""

    hub = "hub"
    packaged = "packaged"
    tiny = "tiny"


@dataclass
class BaseModelConfig(Settings):
    """The LM that is finetuned."""

    name: str
    """Hub name or local folder of the base model; for `packaged` and `tiny` the name of its folder in the cache."""
    origin: BaseModelOrigin
    """`hub` (a hub name or a folder), `packaged` (GGUF in a Python package) or `tiny` (random, made on the spot)."""
    hub_name: str | None
    """Hub name of the same weights where `name` is no hub name: a model card and an adapter's settings say it."""
    package: str | None
    """Python package that carries the GGUF file (`packaged` only)."""
    gguf_file: str | None
    """Glob of the GGUF file inside the package (`packaged` only)."""
    revision: str | None
    """Hub revision: a branch, tag or commit; null is the default branch."""
    dtype: str
    """Dtype of the base weights while training: `float32`, `bfloat16`, `float16`, or `auto`, which the machine is fast
    at; adapter weights are float32."""
    attn_implementation: str
    """Attention while training: `packed` (rows without padding, their common beginning computed once), a kernel of
    transformers (`sdpa`, `eager`, `flash_attention_2`, ...), or `auto`: `packed` without a GPU, else `sdpa`."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory, about a third more time."""
    trust_remote_code: bool
    """Run code that comes with the weights."""

    def _own_problems(self) -> Iterator[str]:
        yield from check(bool(self.name.strip()), "base_model.name", "a hub name or a folder", self.name)
        dtypes = (AUTO, *DTYPES)
        yield from check(self.dtype in dtypes, "base_model.dtype", one_of(dtypes), self.dtype)
        # Elsewhere than on the hub the name is that of a folder in the cache.
        if self.origin is not BaseModelOrigin.hub:
            yield from check_file_name("base_model.name", self.name)
        # The hub's client keeps a revision as a file.
        plain = self.revision is None or not (self.revision.startswith(("/", "-")) or ".." in self.revision)
        yield from check(plain, "base_model.revision", "a branch, tag or commit, or null", self.revision)
        if self.origin is BaseModelOrigin.packaged:
            # To look for a package inside another one, Python would run the outer one.
            fits = self.package is not None and self.package.isidentifier()
            yield from check(fits, "base_model.package", "a package without dots (origin=packaged)", self.package)
            yield from check(bool(self.gguf_file), "base_model.gguf_file", "a glob (origin=packaged)", self.gguf_file)


@dataclass
class LoraConfig(Settings):
    """The low-rank adapter, or none."""

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

    def _own_problems(self) -> Iterator[str]:
        yield from self.check_counts("lora", "lora_r", "lora_alpha")
        yield from self.check_counts("lora", "num_layers", or_null=True)
        dropout = self.lora_dropout
        yield from check(0.0 <= dropout < 1.0, "lora.lora_dropout", "a number in 0..1, below 1", dropout)
        yield from check(bool(self.target_modules), "lora.target_modules", "at least one name", self.target_modules)
        names_layers = self.num_layers is None or self.target_modules != ["all-linear"]
        yield from check(names_layers, "lora.target_modules", "names of layers with lora.num_layers", ["all-linear"])
