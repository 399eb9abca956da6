"""The texts that are sent through both: our own, or a task's, in all lengths and both languages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalscope_vacc.checks.texts import BY_WORDS, POOL, SANITY_EN, SANITY_ZH, SENTENCES, STRANGE
from evalscope_vacc.errors import ConfigError

MOST_TEXTS = 120
_HAN = re.compile(r"[\u3400-\u9fff]")
_SKIP = re.compile(r"(?:^|_)(?:id|ids|label|labels|score|scores|qid|pid|url|split|lang|language)s?$", re.IGNORECASE)
_ROWS = 5000
# characters a token, as a rule of thumb; only buckets are made with it
_LATIN, _HAN_WIDTH = 4.2, 1.6
_BUCKETS = ((24, "short"), (128, "medium"), (10**9, "long"))
_SHORT = 8


@dataclass(frozen=True)
class Sample:
    """One text and where it belongs."""

    text: str
    language: str  # "zh" where half of it or more is Chinese, else "en" (any other script)
    tokens: int  # estimated
    length: str  # "short", "medium" or "long"

    @property
    def bucket(self) -> str:
        """Language and length."""
        return f"{self.language} {self.length}"


def sample(text: str) -> Sample:
    """Sorts one text by language and length."""
    han = len(_HAN.findall(text))
    tokens = max(1, round(han / _HAN_WIDTH + (len(text) - han) / _LATIN))
    language = "zh" if 2 * han >= len(text.strip()) and han else "en"
    return Sample(text, language, tokens, next(name for most, name in _BUCKETS if tokens <= most))


def own_samples() -> list[Sample]:
    """Our own list: short, medium and long texts in English and Chinese."""
    found: list[str] = []
    for language, gap in (("en", " "), ("zh", "")):
        medium = SENTENCES[language][_SHORT:]
        found += SENTENCES[language]
        # long ones of up to some 700 tokens, no two of which begin alike; the last parts differ, so that a cut shows
        found += [gap.join(medium[i:] + medium[:i]) for i in range(0, len(medium), 2)]
        found += [gap.join((medium[i + 1 :] + medium[: i + 1]) * 2) for i in range(0, len(medium), 4)]
    return [sample(text) for text in dict.fromkeys((*found, *STRANGE, *POOL))]


def own_pairs() -> list[tuple[str, str]]:
    """Queries and documents of our own for rerankers: ten queries, each with the same ten documents of its language."""
    found: list[tuple[str, str]] = []
    for pairs, language in ((SANITY_EN[:BY_WORDS], "en"), (SANITY_ZH[:BY_WORDS], "zh")):
        documents = [*(answer for _, answer in pairs), *SENTENCES[language][_SHORT : _SHORT + BY_WORDS]]
        found += [(query, document) for query, _ in pairs for document in documents]
    return found


def task_samples(name: str, most: int = MOST_TEXTS) -> list[Sample]:
    """Texts of an MTEB task, at most ``most``, stratified by language and length; MTEB may download its data.

    Raises:
        ConfigError: There is no such task, or it has no texts.
    """
    import mteb

    try:
        task = mteb.get_task(name)
    except KeyError:
        raise ConfigError(f"MTEB knows no task {name!r}") from None
    task.load_data()
    # retrieval tasks of MTEB 1.x keep corpus and queries beside the data set
    parts = [getattr(task, attribute, None) for attribute in ("dataset", "corpus", "queries")]
    found = dict.fromkeys(text for part in parts for text in _strings(part) if text.strip())
    if not found:
        raise ConfigError(f"the task {name!r} holds no texts")
    return stratify([sample(text) for text in found], most)


def stratify(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Chooses at most ``most`` samples, as evenly over the buckets as they allow, spread over each bucket's lengths."""
    buckets: dict[str, list[Sample]] = {}
    for one in samples:
        buckets.setdefault(one.bucket, []).append(one)
    chosen: list[Sample] = []
    left, room = sorted(buckets.values(), key=len), most
    for number, bucket in enumerate(left):
        share = min(len(bucket), room // (len(left) - number))
        ordered = sorted(bucket, key=lambda s: (s.tokens, s.text))
        chosen += [ordered[i * len(ordered) // share] for i in range(share)]
        room -= share
    return chosen


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """Every string of nested mappings, lists and data sets, without the columns that hold no text."""
    parts: Iterable[Any] = ()
    if isinstance(value, str):
        yield value
    elif depth > 8:
        return
    elif hasattr(value, "column_names") and hasattr(value, "select"):
        if isinstance(value.column_names, Mapping):
            parts = value.values()
        else:
            columns = [name for name in value.column_names if not _SKIP.search(name)]
            rows = value.select(range(0, len(value), max(1, len(value) // _ROWS))).select_columns(columns)
            parts = (list(row.values()) for row in rows)
    elif isinstance(value, Mapping):
        if set(value) <= {"text", "title", "_id", "id"} and isinstance(value.get("text"), str):
            parts = [value["text"]]
        else:
            parts = [part for key, part in value.items() if not (isinstance(key, str) and _SKIP.search(key))]
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        parts = (part for part, _ in zip(value, range(_ROWS), strict=False))
    for part in parts:
        yield from _strings(part, depth + 1)
