"""What routing and training take on cards that were not here: arithmetic alone, printed as the tables of docs/scale.md.

    python experiments/cluster_cost.py

The limit of a card is what its peak rate and its memory bandwidth allow; assumed is ACHIEVED of it. A route is a prompt
and a generated name, CONCURRENT at a time: the prompts' floating-point operations at the peak rate, then for each token
of the names all weights and the keys and values of all prompts read once.
"""

from dataclasses import dataclass

PEAK_FLOPS, BYTES_PER_S, USD_PER_HOUR = 989.4e12, 3.35e12, 3.0
"""Of an H100 SXM: bfloat16 without sparsity, memory, and the price of one for an hour."""
LINK_BYTES_PER_S, NETWORK_BYTES_PER_S = 450e9, 50e9
"""One direction of NVLink between the GPUs of a node, and of a 400 Gbit/s card between nodes."""
ACHIEVED = 1 / 3
CONCURRENT, NAME_TOKENS, QUERY_AND_ROUTE_BYTES = 256, 8, 500
ROWS_PER_GPU, ROW_TOKENS = 32, 110


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The sizes of a base model, and of an adapter of rank 16 on q, k, v and o."""

    name: str
    layers: int
    width: int
    kv_width: int
    layer_weights: float
    head_weights: float

    @property
    def adapter_weights(self) -> float:
        """Return the weights of the adapter."""
        return self.layers * 16 * (2 * (self.width + self.width) + 2 * (self.width + self.kv_width))

    @property
    def weight_bytes(self) -> float:
        """Return the bytes of layers and head in bfloat16; an embedding that is not the head is small."""
        return 2 * (self.layer_weights + self.head_weights)

    @property
    def token_bytes(self) -> float:
        """Return the bytes of a token's keys and values in bfloat16."""
        return 2 * 2 * self.layers * self.kv_width

    def routes_per_second(self, prompt_tokens: int) -> float:
        """Return the limit of one card."""
        prefill = 2 * self.layer_weights * prompt_tokens * CONCURRENT / PEAK_FLOPS
        read = self.weight_bytes + CONCURRENT * (prompt_tokens + NAME_TOKENS) * self.token_bytes
        multiplied = 2 * (self.layer_weights + self.head_weights) * CONCURRENT
        return CONCURRENT / (prefill + NAME_TOKENS * max(read / BYTES_PER_S, multiplied / PEAK_FLOPS))

    def trained_tokens_per_second(self) -> float:
        """Return the limit of one card, the head on labels left out."""
        return PEAK_FLOPS / (4 * self.layer_weights + 6 * self.adapter_weights)

    def all_reduce_seconds(self, num_gpus: int, bytes_per_s: float) -> float:
        """Return how long the GPUs take to add up the adapter's gradients (float32) in a ring."""
        return 2 * (num_gpus - 1) / num_gpus * 4 * self.adapter_weights / bytes_per_s


SMOL = BaseModel(name="SmolLM2-135M", layers=30, width=576, kv_width=192, layer_weights=106.2e6, head_weights=28.3e6)
LLAMA = BaseModel(name="Llama 2 7B", layers=32, width=4096, kv_width=4096, layer_weights=6.476e9, head_weights=131e6)


def main() -> None:
    """Print the tables."""
    print("\n".join([*routing_table(), "", *training_table(), "", *memory_table()]))


def routing_table() -> list[str]:
    """Return the table of routing: limit, what is assumed, and the cost of a million routes."""
    lines = [
        "| base model, prompt | routes/s, limit of a GPU | assumed: 1 GPU | 8 GPUs | 64 GPUs "
        "| a million routes on 8 GPUs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for model in (SMOL, LLAMA):
        for tokens in (100, 340):
            limit = model.routes_per_second(tokens)
            one = limit * ACHIEVED
            seconds = 1e6 / (8 * one)
            cost = 1e6 / one / 3600 * USD_PER_HOUR
            speeds = " | ".join(f"{round(value, -1):,.0f}" for value in (limit, one, 8 * one, 64 * one))
            lines.append(f"| {model.name}, {tokens} tokens | {speeds} | {seconds:,.0f} s, {cost:.2f} USD |")
    return lines


def training_table() -> list[str]:
    """Return the table of training: limit, what is assumed, and what the exchange of gradients adds to a step."""
    lines = [
        "| base model | tokens/s, limit of a GPU | assumed: 1 GPU | 8 GPUs | gradients a step "
        "| exchange, 8 GPUs of a node | exchange, 8 nodes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model in (SMOL, LLAMA):
        limit = model.trained_tokens_per_second()
        one = limit * ACHIEVED
        step = ROWS_PER_GPU * ROW_TOKENS / one
        inside = model.all_reduce_seconds(8, LINK_BYTES_PER_S)
        between = inside + model.all_reduce_seconds(8, NETWORK_BYTES_PER_S)
        shares = [
            f"{1e3 * seconds:.2f} ms, {seconds / (step + seconds):.1%} of a step" for seconds in (inside, between)
        ]
        speeds = " | ".join(f"{round(value, -3):,.0f}" for value in (limit, one, 8 * step * one / (step + inside)))
        megabytes = f"{4e-6 * model.adapter_weights:.1f} MB"
        lines.append(f"| {model.name} | {speeds} | {megabytes} | {shares[0]} | {shares[1]} |")
    return lines


def memory_table() -> list[str]:
    """Return the table of memory, and of the bytes that a million routes move."""
    lines = [
        f"| base model | weights | adapter, gradients, moments | keys and values, {CONCURRENT} prompts of 340 tokens "
        "| a million queries and routes |",
        "| --- | --- | --- | --- | --- |",
    ]
    for model in (SMOL, LLAMA):
        cache = CONCURRENT * (340 + NAME_TOKENS) * model.token_bytes
        sizes = (model.weight_bytes, 16 * model.adapter_weights, cache, 1e6 * QUERY_AND_ROUTE_BYTES)
        lines.append(f"| {model.name} | {' | '.join(f'{size / 1e9:.2f} GB' for size in sizes)} |")
    return lines


if __name__ == "__main__":
    main()
