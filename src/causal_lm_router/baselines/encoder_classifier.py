"""A small encoder, finetuned as a whole, that predicts every candidate's score from the query's text."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn
from torch.nn import functional

from causal_lm_router.config import EncoderConfig
from causal_lm_router.data.arrays import Floats
from causal_lm_router.models.embeddings import load_encoder
from causal_lm_router.models.torch_state import keep_random_state
from causal_lm_router.terminal import progress_bar

logger = logging.getLogger(__name__)

BATCH_SIZE = 32
WARMUP = 0.1
"""Share of the steps over which the learning rate rises; it then falls to 0."""


class EncoderClassifier(nn.Module):
    """A sentence encoder with a logit per candidate."""

    def __init__(self, encoder: SentenceTransformer, max_tokens: int, num_candidates: int) -> None:
        super().__init__()
        window = encoder.max_seq_length
        encoder.max_seq_length = max_tokens if window is None else min(window, max_tokens)
        self.encoder = encoder
        size = encoder.get_embedding_dimension()
        assert size is not None
        self.head = nn.Linear(size, num_candidates)

    def forward(self, queries: Sequence[str]) -> Tensor:
        """Return the logits (queries x candidates)."""
        features = batch_to_device(self.encoder.preprocess(queries), self.head.weight.device)
        embedding = functional.normalize(self.encoder(features)["sentence_embedding"], dim=1)
        # Scaled from a unit vector to coordinates of size 1: with smaller inputs the new head would learn more slowly
        # than the encoder.
        return self.head(embedding * self.head.in_features**0.5)  # type: ignore[no-any-return]


def fit_encoder(
    queries: Sequence[str], scores: Floats, settings: EncoderConfig, seed: int
) -> Callable[[Sequence[str]], Floats]:
    """Return a function from query texts to predicted scores: the logistic function of each candidate's logit.

    Encoder and head are trained by AdamW on the binary cross-entropy of every logit against its score, on the GPU if
    there is one. Queries longer than `encoder_max_tokens` or the encoder's window lose their end.

    Raises:
        ValueError: the encoder cannot be loaded.
    """
    # Seeded before the head is made: its weights, the order of batches and dropout all follow from the seed.
    with keep_random_state():
        torch.manual_seed(seed)
        encoder = load_encoder(settings.embedding)
        model = EncoderClassifier(encoder, settings.encoder_max_tokens, scores.shape[1]).to(encoder.device)
        _train(model, queries, torch.as_tensor(scores, dtype=torch.float32), settings)
    model.eval()

    @torch.no_grad()
    def predict(texts: Sequence[str]) -> Floats:
        # Sorted by length, since a batch costs as much as its longest query; results go back to their places.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        predicted = np.empty((len(texts), scores.shape[1]))
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            predicted[batch] = model([texts[index] for index in batch]).sigmoid().cpu().numpy()
        return predicted

    return predict


def _train(model: EncoderClassifier, queries: Sequence[str], scores: Tensor, settings: EncoderConfig) -> None:
    # The learning rate changes with every step, so the number of steps is needed first; the last batch may be short.
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.encoder_learning_rate)
    num_steps = settings.encoder_epochs * -(-len(queries) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _scale_rate(step / num_steps))
    model.train()
    bar = progress_bar(name="training the encoder", unit="steps", total=num_steps)
    for epoch in range(settings.encoder_epochs):
        losses = []
        for batch in torch.randperm(len(queries)).split(BATCH_SIZE):  # type: ignore[no-untyped-call]
            logits = model([queries[index] for index in batch.tolist()])
            loss = functional.binary_cross_entropy_with_logits(logits, scores[batch].to(logits.device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            # Clipped, since a single odd batch can undo the pretrained encoder.
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.update()
        logger.info("encoder epoch %d of %d: loss %.4f", epoch + 1, settings.encoder_epochs, np.mean(losses))
    bar.close()


def _scale_rate(progress: float) -> float:
    """Return the learning rate after a share of the steps, as a share of the peak."""
    # Never 0, so that the first and the last step count too.
    return max(progress / WARMUP if progress < WARMUP else (1 - progress) / (1 - WARMUP), 1e-3)
