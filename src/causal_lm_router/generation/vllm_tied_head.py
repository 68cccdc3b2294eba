"""What vLLM's workers have to do after a reload, by name: the engine may run in a process of its own."""

from typing import Any


class TiedHead:
    """Mixed into vLLM's workers by the engine argument `worker_extension_cls`."""

    def refresh_tied_head(self) -> None:
        """Have a head that shares the embedding's weights use those of now.

        vLLM's reload gives the embedding new ones, and leaves the head (on a CPU, its packed copy too) at those before.
        """
        worker: Any = self
        model = worker.get_model()
        if getattr(model.config, "tie_word_embeddings", False):
            model.lm_head.tie_weights(model.model.embed_tokens)
            model.lm_head.quant_method.process_weights_after_loading(model.lm_head)
