"""The texts that checks and parity send: our own, which stand in ``texts.toml`` with what each is for, or a task's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import read_toml

_TEXTS: dict[str, Any] = read_toml(Path(__file__).with_suffix(".toml"))

SHORT_EN: str = _TEXTS["short_en"]
SHORT_ZH: str = _TEXTS["short_zh"]
LONG_1, LONG_2 = (_TEXTS["long_head"] + end for end in _TEXTS["long_ends"])
CUT_SHORT: str = _TEXTS["cut_short"]
CUT_LONG: str = CUT_SHORT + _TEXTS["cut_rest"]
POOL: tuple[str, ...] = (LONG_1, SHORT_EN, SHORT_ZH, LONG_2, *_TEXTS["pool"])
STRANGE: tuple[str, ...] = tuple(_TEXTS["strange"])
CHARACTERS: dict[str, tuple[str, str]] = {name: (text, other) for name, (text, other) in _TEXTS["characters"].items()}
"""Pairs of texts that are alike but for one kind of character, by its name."""
SENTENCES: dict[str, list[str]] = _TEXTS["sentences"]

BY_WORDS = 5
SANITY_EN, SANITY_ZH = (tuple((q, a) for q, a in _TEXTS["questions"][code]) for code in ("en", "zh"))
"""Questions and their answers; the first :data:`BY_WORDS` share words with them."""

PREFLIGHT_TEXTS: tuple[str, ...] = (*SANITY_EN[0], *SANITY_ZH[0], LONG_1)
"""Everything that the short form sends, as it stands: to an encoder as texts, to a cross-encoder as queries and documents."""

MOST_TEXTS = 120
_HAN = re.compile(r"[\u3400-\u9fff]")
_SKIP = re.compile(r"(?:^|_)(?:id|ids|label|labels|score|scores|qid|pid|url|split|lang|language)s?$", re.IGNORECASE)
_ROWS = 5000
# characters a token, as a rule of thumb; only buckets are made with it
_LATIN, _HAN_WIDTH = 4.2, 1.6
_BUCKETS = ((24, "short"), (128, "medium"), (10**9, "long"))
_SHORT = 8


def numbered(number: int, kind: str = "text") -> str:
    """A text of some forty tokens that begins unlike every other one, so that no cache helps to answer it."""
    return (
        f"{number * 7919 % 1000} crates, {kind} {number}: the inventory of this shelf lists seeds, string, two lanterns "
        f"and a box of {number + 3} candles, counted twice before the store was closed for the winter."
    )


def longer_than(tokens: int) -> str:
    """A text that has more than ``tokens`` tokens in every usual tokenizer: as many words, and a word is one or more."""
    words = LONG_1.split()
    repeated = words * (tokens // len(words) + 2)
    return " ".join(repeated[: tokens + 64])


def of_words(count: int, *, shift: int = 0) -> list[str]:
    """Words of plain English, about five tokens to four words; another ``shift`` gives other words at every place."""
    words = (LONG_1 + _TEXTS["long_ends"][1]).split()
    return [words[(shift + place) % len(words)] for place in range(count)]


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
    """Queries and documents of our own for rerankers: twelve queries, each with the same twelve documents of its language.

    A query and two documents of a language are long, and what decides stands at their end, so that a cut shows.
    """
    found: list[tuple[str, str]] = []
    for pairs, language, gap in ((SANITY_EN[:BY_WORDS], "en", " "), (SANITY_ZH[:BY_WORDS], "zh", "")):
        medium = SENTENCES[language][_SHORT:]
        answers = [answer for _, answer in pairs]
        long = [gap.join([*medium[-3:], answer]) for answer in answers[:2]]
        queries = [*(query for query, _ in pairs), gap.join([*medium[-5:-3], pairs[0][0]])]
        found += [(query, document) for query in queries for document in (*answers, *medium[:BY_WORDS], *long)]
    return found


def task_samples(name: str) -> list[Sample]:
    """Texts of an MTEB task, at most :data:`MOST_TEXTS`, stratified by language and length; MTEB may download its data.

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
    return stratify([sample(text) for text in found], MOST_TEXTS)


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
    elif hasattr(value, "select_columns") and not isinstance(value, Mapping):
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
