"""The texts that checks send; written for this purpose, so that no data set holds them and everybody can recognise them."""

from __future__ import annotations

SHORT_EN = "The harbour master wrote the name of every boat into a green ledger."
SHORT_ZH = "图书馆的管理员每天早上给窗台上的花浇水。"

# Longer than one block of a prefix cache (128 tokens in vLLM's builds for accelerators), and below the 256 tokens of
# the smallest models. The two begin alike for more than such a block: what a cache mixes up shows at their ends.
_LONG_HEAD = (
    "The valley has three mills, and each of them grinds on another day of the week. On Monday the lowest mill opens its "
    "gate, because the stream is full after the quiet Sunday and the wheel turns without help. The miller there keeps a "
    "list of farmers on the door, in chalk, and nobody is allowed to change the order. On Wednesday the middle mill takes "
    "over, which has the larger stones but an old axle, so that it must rest every second hour while the grease cools. "
    "People bring bread and cheese and sit on the wall until the bell rings again. On Friday the upper mill works through "
    "the night, with lanterns hung along the path, since the water is needed for the gardens during the day."
)
LONG_1 = f"{_LONG_HEAD} The flour of the lowest mill is the finest."
LONG_2 = f"{_LONG_HEAD} Nobody has repaired the bridge since the flood."

# The second begins with the first: cut to the first one's tokens, both must give one vector.
CUT_SHORT = "A clock that runs slow is still right about the order of things."
CUT_LONG = (
    f"{CUT_SHORT} The second hand of the tower clock was lost in a storm, and the town learned to count without it."
)

# Each question's answer stands at the same place; the other answers of its language are plainly about something else.
SANITY_EN: tuple[tuple[str, str], ...] = (
    ("Which planet is known for its rings?", "Saturn is the planet that is best known for its bright rings."),
    ("How do bees make honey?", "Bees make honey from the nectar of flowers, which they thicken in their hive."),
    ("What is the boiling point of water?", "At sea level the boiling point of water is one hundred degrees Celsius."),
    ("Who repairs a broken violin?", "A violin maker repairs a broken violin, from its pegs to its cracked wood."),
    ("Why does bread dough rise?", "Bread dough rises because yeast turns sugar into gas that fills the dough."),
)
SANITY_ZH: tuple[tuple[str, str], ...] = (
    ("熊猫主要吃什么？", "熊猫主要吃竹子，一天要吃十几公斤。"),
    ("怎样泡一杯绿茶？", "泡一杯绿茶，水温要在八十度左右，时间两三分钟。"),
    ("月亮为什么会发光？", "月亮自己不会发光，它反射的是太阳的光。"),
    ("高铁票可以在哪里买？", "高铁票可以在车站窗口买，也可以在网上买。"),
    ("冬天怎样防止水管冻裂？", "冬天给水管包上保温棉，可以防止水管冻裂。"),
)

PREFLIGHT_TEXTS: tuple[str, ...] = (
    SANITY_EN[0][0],
    SANITY_EN[0][1],
    SANITY_ZH[0][0],
    SANITY_ZH[0][1],
    LONG_1,
)
"""Everything that the short form sends, as it stands: to an encoder as texts, to a cross-encoder as queries and documents."""


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
