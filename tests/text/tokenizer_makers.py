"""Tokenizers of every kind that served models have, made here: real ones would have to be downloaded."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SENTENCES = [
    "Instruct: find the passages that answer the question\nQuery: what does a reranker do\n",
    "<Document>: it puts the best passages first, and says so with a score between zero and one.",
    "检索与问题相关的文本。重排序模型给每一对文本打分。",
    "    indented code():\n        return None\n\n\n",
]


def byte_level_bpe(*, end_token: bool = False, merges: int = 400) -> Tokenizer:
    """Qwen's kind: NFC, then bytes, merged as learnt from a few sentences; special tokens are known inside texts."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        SENTENCES * 20,
        trainers.BpeTrainer(
            vocab_size=256 + len(SPECIAL) + merges,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    if end_token:
        end = (SPECIAL[0], made.token_to_id(SPECIAL[0]))
        made.post_processor = processors.TemplateProcessing(
            single=f"$A {end[0]}", pair=f"$A $B {end[0]}", special_tokens=[end]
        )
    return made


def unmerged_bytes(
    normalizer: normalizers.Normalizer | None, pre_tokenizer: pre_tokenizers.PreTokenizer | None = None
) -> Tokenizer:
    """Sentencepiece's kind at its worst: nothing but single bytes, a word-start mark, and a normalizer."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"<s>": 256, "</s>": 257}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizer or pre_tokenizers.Metaspace(replacement="_", prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    return made


def characters(normalizer: normalizers.Normalizer) -> Tokenizer:
    """A unigram model that knows single characters only, so that every character is a token."""
    made = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0)], unk_id=0))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Split("", "isolated")])
    return made


WORST: dict[str, Callable[[], Tokenizer]] = {
    "bytes": lambda: unmerged_bytes(None),
    "bytes of NFC": lambda: unmerged_bytes(normalizers.NFC()),
    "bytes of NFD": lambda: unmerged_bytes(normalizers.NFD()),
    "bytes of NFKC": lambda: unmerged_bytes(normalizers.NFKC()),
    "bytes of NFKD": lambda: unmerged_bytes(normalizers.NFKD()),
    "bytes of lower-cased NFKD": lambda: unmerged_bytes(
        normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()])
    ),
    "bytes of Nmt and NFKC": lambda: unmerged_bytes(normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])),
    "bytes of BERT's words": lambda: unmerged_bytes(
        normalizers.BertNormalizer(strip_accents=False), pre_tokenizers.BertPreTokenizer()
    ),
    "byte-level BPE without merges": lambda: byte_level_bpe(end_token=True, merges=0),
    "byte-level BPE": lambda: byte_level_bpe(end_token=True),
    "characters of NFKC": lambda: characters(normalizers.NFKC()),
}
