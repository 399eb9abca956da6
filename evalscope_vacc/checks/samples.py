"""The texts that are sent through both: our own, or a task's, in all lengths and both languages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalscope_vacc.checks.texts import BY_WORDS, POOL, SANITY_EN, SANITY_ZH
from evalscope_vacc.errors import ConfigError

MOST_TEXTS = 120
_HAN = re.compile(r"[\u3400-\u9fff]")
_SKIP = re.compile(r"(?:^|_)(?:id|ids|label|labels|score|scores|qid|pid|url|split|lang|language)s?$", re.IGNORECASE)
_ROWS = 5000
# characters a token, as a rule of thumb; only buckets are made with it
_LATIN, _HAN_WIDTH = 4.2, 1.6
_BUCKETS = ((24, "short"), (128, "medium"), (10**9, "long"))

_EN = (
    "The baker opens at six.",
    "Rain fell on the tin roof all night.",
    "Where did you leave the ladder?",
    "A red kite circles above the quarry.",
    "Payment is due within thirty days.",
    "The choir rehearses every second Thursday.",
    "How deep is the old well?",
    "Copper turns green when it weathers.",
    (
        "The archive keeps every map of the coast since the first survey, and most of them disagree about the sandbanks. "
        "Sailors knew this and trusted their lead lines more than paper, which is why so many maps carry pencil marks."
    ),
    (
        "Before the orchard was planted, the family grew flax on the slope. The soil was poor and full of flint, but the "
        "flax did not mind, and its blue flowers could be seen from the ferry for two weeks in June."
    ),
    (
        "A good hinge is one that nobody notices. It carries the door for forty years, asks for a drop of oil now and then, "
        "and complains only when the house itself begins to settle."
    ),
    (
        "The committee met three times and decided nothing, which was the decision that everyone had hoped for. In the "
        "minutes it says that the matter is to be looked at again after the harvest."
    ),
    (
        "Night trains have windows that do not open and lamps that do not quite go out. Travellers learn to sleep in the "
        "half light, with a coat over their eyes and one hand on the strap of the bag."
    ),
    (
        "To test the ice the teacher threw a stone as large as a loaf. It slid for a long time, singing, and the children "
        "listened until it stopped before they took a single step."
    ),
    (
        "The new pump moves twice as much water as the old one and uses a third of the power. Its only fault is the noise, a "
        "thin whistle that sets in whenever the reservoir is nearly full."
    ),
    (
        "Letters from the islands came in bundles, because the boat went only when the wind allowed it. People answered the "
        "oldest one first, and so every conversation ran some months behind the weather."
    ),
)
_ZH = (
    "面包店六点开门。",
    "昨晚雨一直打在铁皮屋顶上。",
    "你把梯子放在哪里了？",
    "请在三十天之内付款。",
    "合唱团每两周排练一次。",
    "那口老井有多深？",
    "铜放久了会变绿。",
    "采石场上空有一只鹰。",
    (
        "档案馆里保存着第一次测量以来所有的海岸地图，其中大多数对沙洲的位置说法不一。水手们知道这一点，所以更相信手里的铅锤，"
        "许多地图上都留着铅笔的记号。"
    ),
    "果园种下之前，这家人在山坡上种亚麻。土地贫瘠，到处是石头，可是亚麻并不在意，六月里整整两个星期，从渡船上都能看见蓝色的花。",
    "好的铰链是没有人注意的铰链。它托着门四十年，偶尔要一滴油，只有房子自己开始下沉的时候才会出声。",
    "委员会开了三次会，什么也没有决定，而这正是大家所希望的。会议记录上写着，这件事等收割以后再看。",
    "夜车的窗户打不开，灯也不会完全熄灭。旅客们学会了在半明半暗里睡觉，用外衣盖住眼睛，一只手放在包带上。",
    "为了试一试冰面，老师扔出一块像面包那么大的石头。石头滑了很久，一路响着，孩子们听到它停下来才迈出第一步。",
    "新水泵的出水量是旧的两倍，用电只有三分之一。它唯一的毛病是声音，每当水库快满的时候就会发出细细的哨声。",
    "岛上的信总是一捆一捆地来，因为船要等风。人们先回最早的那一封，所以每一次谈话都比天气晚几个月。",
)
# what a gateway may take away or turn into something else
_STRANGE = (
    "first line\nsecond\nthird",
    "  set apart by spaces  ",
    "The bakery closed 😀 and the cat 🐈 left.",
    "圖書館的鐘樓開門時間很長。",
    "Ångström, naïve façade, Čapek & Šárka",
    'The END of ALL letters; is "this" (really) a question?!',
)


@dataclass(frozen=True)
class Sample:
    """One text and where it belongs.

    Attributes:
        text: The exact text.
        language: "zh" where half of it or more is Chinese, else "en" (any other script).
        tokens: Estimated.
        length: "short", "medium" or "long".
    """

    text: str
    language: str
    tokens: int
    length: str

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
    for lines, gap in ((_EN, " "), (_ZH, "")):
        medium = lines[8:]
        found += lines
        # long ones of up to some 700 tokens, no two of which begin alike; the last parts differ, so that a cut shows
        found += [gap.join(medium[i:] + medium[:i]) for i in range(0, len(medium), 2)]
        found += [gap.join((medium[i + 1 :] + medium[: i + 1]) * 2) for i in range(0, len(medium), 4)]
    return [sample(text) for text in dict.fromkeys((*found, *_STRANGE, *POOL))]


def own_pairs() -> tuple[list[str], list[str]]:
    """Queries and documents of our own for rerankers, corresponding: ten queries with ten documents each."""
    queries, documents = [], []
    for pairs, lines in ((SANITY_EN[:BY_WORDS], _EN), (SANITY_ZH[:BY_WORDS], _ZH)):
        shown = [document for _, document in pairs] + list(lines[8:13])
        for query, _ in pairs:
            queries += [query] * len(shown)
            documents += shown
    return queries, documents


def task_samples(name: str, most: int = MOST_TEXTS) -> list[Sample]:
    """Texts of an MTEB task, stratified by language and length.

    Args:
        name: The task's name; its data is loaded by MTEB, which may download it.
        most: Texts in all.

    Raises:
        ConfigError: There is no such task, or it has no texts.
    """
    import mteb

    try:
        task = mteb.get_task(name)
    except KeyError:
        raise ConfigError(f"MTEB knows no task {name!r}") from None
    task.load_data()
    found = dict.fromkeys(text for text in _strings(_data_of(task)) if text.strip())
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


def _data_of(task: Any) -> Iterator[Any]:
    # retrieval tasks of MTEB 1.x keep corpus and queries beside the data set
    for attribute in ("dataset", "corpus", "queries"):
        value = getattr(task, attribute, None)
        if value is not None:
            yield value


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """Every string of nested mappings, lists and data sets, without the columns that hold no text."""
    if isinstance(value, str):
        yield value
    elif depth > 8:
        return
    elif hasattr(value, "column_names") and hasattr(value, "select"):
        names = value.column_names
        if isinstance(names, Mapping):
            for part in value.values():
                yield from _strings(part, depth + 1)
            return
        columns = [name for name in names if not _SKIP.search(name)]
        step = max(1, len(value) // _ROWS)
        for row in value.select(range(0, len(value), step)).select_columns(columns):
            yield from _strings(list(row.values()), depth + 1)
    elif isinstance(value, Mapping):
        if set(value) <= {"text", "title", "_id", "id"} and isinstance(value.get("text"), str):
            yield value["text"]
            return
        for key, part in value.items():
            if not (isinstance(key, str) and _SKIP.search(key)):
                yield from _strings(part, depth + 1)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for number, part in enumerate(value):
            if number >= _ROWS:
                return
            yield from _strings(part, depth + 1)
