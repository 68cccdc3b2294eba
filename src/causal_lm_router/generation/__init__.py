"""Routes out of a base model: generators (vLLM, transformers), and the decoding methods on top of them."""
