"""The step that vLLM's workers must take after a reload of weights.

A method of the workers, called by name, since the engine may run in another process.
"""

from typing import Any


class TiedHead:
    """A mixin for vLLM's workers, added by the engine argument `worker_extension_cls`."""

    def refresh_tied_head(self) -> None:
        """Give a head that shares the embedding's weights the new ones.

        vLLM's reload changes the embedding only: the head (on a CPU, its packed copy too) keeps the old weights.
        """
        worker: Any = self
        model = worker.get_model()
        if getattr(model.config, "tie_word_embeddings", False):
            model.lm_head.tie_weights(model.model.embed_tokens)
            # Packs the weights for the CPU's kernels again.
            model.lm_head.quant_method.process_weights_after_loading(model.lm_head)
