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
# Each question's answer stands at the same place. The first five of a language share words with their answers, the rest
# nothing but the meaning: random weights find the former, as any bag of words does, and not the latter.
BY_WORDS = 5
SANITY_EN: tuple[tuple[str, str], ...] = (
    ("Which planet is known for its rings?", "Saturn is the planet that is best known for its bright rings."),
    ("How do bees make honey?", "Bees make honey from the nectar of flowers, which they thicken in their hive."),
    ("What is the boiling point of water?", "At sea level the boiling point of water is one hundred degrees Celsius."),
    ("Who repairs a broken violin?", "A violin maker repairs a broken violin, from its pegs to its cracked wood."),
    ("Why does bread dough rise?", "Bread dough rises because yeast turns sugar into gas that fills the dough."),
    ("Who fixes broken cars?", "A mechanic repairs vehicles in a garage."),
    ("How can I fall asleep faster?", "Regular bedtimes and no caffeine help against insomnia."),
    ("What should I take for a headache?", "Aspirin or ibuprofen usually relieves a migraine."),
    ("Why do leaves turn red in autumn?", "Foliage loses its chlorophyll before winter, so other pigments show."),
    ("How do planes stay in the air?", "An aircraft's wings generate lift during flight."),
    ("Where do penguins live?", "These flightless birds inhabit Antarctica and cold southern coasts."),
    ("Can I get my money back?", "Customers may request a refund within thirty days of purchase."),
    ("What do cows eat?", "Cattle graze on grass and hay."),
    ("Which language is spoken in Brazil?", "Portuguese is the official tongue of South America's largest nation."),
    ("How do I become a doctor?", "Students attend medical school and finish a residency at a hospital."),
    ("Is it going to rain tomorrow?", "The weather forecast predicts showers and thunderstorms."),
    ("What is the biggest animal in the sea?", "No creature of the ocean is larger than a blue whale."),
)
SANITY_ZH: tuple[tuple[str, str], ...] = (
    ("熊猫主要吃什么？", "熊猫主要吃竹子，一天要吃十几公斤。"),
    ("怎样泡一杯绿茶？", "泡一杯绿茶，水温要在八十度左右，时间两三分钟。"),
    ("月亮为什么会发光？", "月亮自己不会发光，它反射的是太阳的光。"),
    ("高铁票可以在哪里买？", "高铁票可以在车站窗口买，也可以在网上买。"),
    ("冬天怎样防止水管冻裂？", "冬天给水管包上保温棉，可以防止水管冻裂。"),
    ("怎样才能快点入睡？", "按时上床、少喝咖啡，对失眠很有帮助。"),
    ("头疼吃什么药？", "布洛芬能缓解偏头痛。"),
    ("谁能修好我的汽车？", "机械师在维修厂里检查车辆的发动机。"),
    ("奶牛平时吃什么？", "牲畜以青草和干草为饲料。"),
    ("明天会不会下雨？", "天气预报说有雷阵雨。"),
    ("我可以把钱要回来吗？", "顾客在购买后三十天之内可以申请退款。"),
    ("怎么当上医生？", "学生要读完医学院，再到医院实习。"),
    ("飞机为什么不会掉下来？", "机翼在飞行中产生升力。"),
    ("海里最大的动物是什么？", "蓝鲸是海洋中体型最庞大的生物。"),
    ("秋天树叶为什么变红？", "入冬之前叶绿素分解，其他色素显现出来。"),
)

# asked for again and again, alone and in batches: short and long, English and Chinese, upper case, accents, no letters
POOL: tuple[str, ...] = (
    LONG_1,
    SHORT_EN,
    SHORT_ZH,
    LONG_2,
    "A red kite circles above the quarry.",
    "铜放久了会变绿。",
    "THE OLD LIGHTHOUSE IS NOT LIT ANY MORE.",
    "Zoë's café in Kraków closes at 18:30.",
    "Payment is due within thirty days; the choir rehearses every second Thursday in the hall behind the station.",
    "水手们更相信手里的铅锤，许多地图上都留着铅笔的记号。",
    "42",
    "Where did you leave the ladder?",
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


def of_words(count: int, *, shift: int = 0) -> list[str]:
    """Words of plain English, about five tokens to four words; another ``shift`` gives other words at every place."""
    words = (LONG_1 + " " + LONG_2[len(_LONG_HEAD) :]).split()
    return [words[(shift + place) % len(words)] for place in range(count)]
