"""Settings of the groups `base_model` and `lora`."""

from dataclasses import dataclass
from enum import StrEnum

from causal_lm_router.config.checks import DTYPES, require


class BaseModelOrigin(StrEnum):
    """Where base model weights come from."""

    hub = "hub"
    packaged = "packaged"
    tiny = "tiny"


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
        require(bool(self.name.strip()), "base_model.name", self.name, "a hub name or a folder")
        require(self.dtype in DTYPES, "base_model.dtype", self.dtype, " | ".join(DTYPES))
        if self.origin is BaseModelOrigin.packaged:
            require(bool(self.package), "base_model.package", self.package, "a package name (origin=packaged)")
            require(bool(self.gguf_file), "base_model.gguf_file", self.gguf_file, "a glob (origin=packaged)")


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
        require(self.lora_r >= 1, "lora.lora_r", self.lora_r, "an integer of at least 1")
        require(self.lora_alpha >= 1, "lora.lora_alpha", self.lora_alpha, "an integer of at least 1")
        require(0.0 <= self.lora_dropout < 1.0, "lora.lora_dropout", self.lora_dropout, "a number in 0..1, below 1")
        some = self.num_layers is None or self.num_layers >= 1
        require(some, "lora.num_layers", self.num_layers, "an integer of at least 1, or null")
        require(bool(self.target_modules), "lora.target_modules", self.target_modules, "at least one name")
