"""The page's words, in English and Chinese, and the Chinese of what the comparison says in English."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

LANGUAGES = ("en", "zh")
HTML_LANGUAGE = {"en": "en", "zh": "zh-Hans"}

TEXTS: Mapping[str, tuple[str, str]] = {
    "report": ("Evaluation report", "评测报告"),
    "skip": ("Skip to the verdict", "跳到结论"),
    "theme": ("Theme: ", "主题："),
    "theme_auto": ("Auto", "自动"),
    "theme_light": ("Light", "浅色"),
    "theme_dark": ("Dark", "深色"),
    "sections": ("Sections", "目录"),
    "finished": ("finished", "完成于"),
    # -- verdict
    "verdict": ("Verdict", "结论"),
    "pass": ("The scores match", "得分一致"),
    "fail": ("Scores are too low", "得分偏低"),
    "nothing": ("Nothing to compare", "没有可比较的得分"),
    "pass_line": (
        "{judged} of {judged} scores are as accurate as {reference}.",
        "全部 {judged} 项得分与 {reference} 一样准确。",
    ),
    "fail_line": (
        "{failed} of {judged} scores lie below {reference} by more than is allowed.",
        "{judged} 项得分中有 {failed} 项低于 {reference}，且超出允许范围。",
    ),
    "fail_mean_line": (
        "Every single score is within its tolerance, but a benchmark mean is not that of {reference}.",
        "每一项得分都在允许范围内，但基准平均分与 {reference} 不一致。",
    ),
    "nothing_line": ("No score could be held against {reference}.", "没有得分能与 {reference} 比较。"),
    "above": ("Scores are too high", "得分偏高"),
    "incomplete": ("The run is incomplete", "评测不完整"),
    "above_line": (
        "{above} of {judged} scores lie above {reference} by more than is allowed.",
        "{judged} 项得分中有 {above} 项高于 {reference}，且超出允许范围。",
    ),
    "also_above": ("Above it by more than that: {above}.", "另有 {above} 项高出允许范围。"),
    "finished_of": ("{finished} of {asked} tasks finished.", "{asked} 个任务中完成了 {finished} 个。"),
    "failed_tasks": ("{count} failed: {tasks}", "{count} 个任务失败：{tasks}"),
    "not_run_tasks": ("{count} not run: {tasks}", "{count} 个任务未运行：{tasks}"),
    "no_reference_tasks": ("{count} without a reference: {tasks}", "{count} 个任务没有参考：{tasks}"),
    "suspicion_at_chance": ("No better than chance: {tasks}", "与随机结果无异：{tasks}"),
    "suspicion_no_number": ("The score is missing or not a number: {tasks}", "得分缺失或不是数值：{tasks}"),
    "suspicion_all_equal": ("Every task has the same score, {value}: {tasks}", "所有任务得分相同（{value}）：{tasks}"),
    "suspicion_sanity": (
        "Before the run every text got the same answer: {tasks}",
        "运行前的检查中，所有文本得到相同的回答：{tasks}",
    ),
    "worst": ("Furthest below: {rows}", "偏低最多：{rows}"),
    "no_reference": (
        "There is no reference to hold these scores against.",
        "没有可与这些得分比较的参考。",
    ),
    "more_below": ("; {count} more are below", "；其余 {count} 项见下文"),
    "kpi_scores": ("scores judged", "已判定得分"),
    "kpi_tasks": ("tasks", "任务"),
    "kpi_worst": ("largest difference, points", "最大差值（分）"),
    "kpi_rate": ("texts per second", "每秒文本数"),
    "kpi_busy": ("of the time all slots busy", "时间内全部并发槽忙碌"),
    "kpi_retries": ("retries", "重试"),
    "kpi_time": ("time in the model", "模型用时"),
    # -- plot
    "plot": ("Ours against {reference}", "与 {reference} 对比"),
    "plot_help": (
        "Each dot is a score of this run less the reference, in points; the band is what the same weights may differ by.",
        "每个点是本次得分减去参考得分（单位：分）。色带是相同权重两次运行之间允许的差异。",
    ),
    "plot_compressed": (
        "The scale is compressed outside the band.",
        "色带以外的刻度经过压缩。",
    ),
    "plot_several": (
        "A line with several dots has a dot a subset; its numbers are means.",
        "一行有多个点时，每个点是一个子集，数值为平均值。",
    ),
    "below": ("below", "偏低"),
    "higher": ("above", "偏高"),
    "points": ("points", "分"),
    "dots_hidden": ("{count} dots between the ends are not drawn", "两端之间有 {count} 个点未绘出"),
    # -- table
    "scores": ("Scores", "得分"),
    "filter": ("Filter by task, metric or subset", "按任务、指标或子集筛选"),
    "all": ("all", "全部"),
    "showing": ("{shown} of {total} shown", "显示 {shown} / {total}"),
    "none_match": ("No score matches the filter.", "没有符合筛选条件的得分。"),
    "rows_left_out": (
        "{count} more rows are left out here; `evalscope-vacc compare --csv` prints all of them.",
        "另有 {count} 行未列出；运行 `evalscope-vacc compare --csv` 可输出全部。",
    ),
    "col_task": ("Task", "任务"),
    "col_metric": ("Metric", "指标"),
    "col_ours": ("Ours", "本次"),
    "col_published": ("Published", "已发布"),
    "col_reference": ("Reference", "参考"),
    "col_difference": ("Difference", "差值"),
    "col_allowed": ("Allowed", "允许"),
    "col_share": ("Share", "占比"),
    "col_verdict": ("Verdict", "判定"),
    "v_pass": ("matches", "一致"),
    "v_above": ("above", "偏高"),
    "v_fail": ("too low", "偏低"),
    "v_not judged": ("not judged", "未判定"),
    "v_no reference": ("no reference", "无参考"),
    "v_partial": ("partial", "不完整"),
    "notes": ("Notes", "注释"),
    "means": ("Benchmark means", "基准平均分"),
    "col_benchmark": ("Benchmark", "基准"),
    "col_measure": ("Mean", "平均方式"),
    "col_tasks": ("Tasks", "任务数"),
    "of": ("{part} of {whole}", "{part} / {whole}"),
    "interval": (
        "{task} {subset}: 95 % interval of the difference {low} to {high} points, p = {p}, {queries} queries",
        "{task} {subset}：差值的 95 % 区间为 {low} 至 {high} 分，p = {p}，{queries} 个查询",
    ),
    # -- speed
    "speed": ("Speed", "速度"),
    "speed_help": (
        "Each block is one task: as wide as the time it took, as high as the texts (or pairs) per second.",
        "每个色块是一个任务：宽度为用时，高度为每秒文本（或文本对）数。",
    ),
    "busy_help": (
        "Below it, the share of the network time in which every slot had a request in flight.",
        "下方为网络时间中全部并发槽都有请求在途的比例。",
    ),
    "no_usage": ("This run left no counts.", "本次运行没有留下计数。"),
    "per_second": ("texts/s", "文本/秒"),
    "col_texts": ("Texts", "文本"),
    "col_repeated": ("Repeated", "重复"),
    "col_stored": ("From store", "来自存储"),
    "col_cut": ("Cut", "截断"),
    "col_tokens": ("Tokens", "词元"),
    "col_requests": ("Requests", "请求"),
    "col_retries": ("Retries", "重试"),
    "col_seconds": ("Seconds", "秒"),
    "col_rate": ("Texts/s", "文本/秒"),
    "col_token_rate": ("Tokens/s", "词元/秒"),
    "col_busy": ("Slots busy", "槽忙碌"),
    "slots_busy": ("slots busy", "槽忙碌"),
    "retries_in": (
        "{model}: {count} requests were sent again; their tasks are red.",
        "{model}：{count} 个请求被重发，相应任务标为红色。",
    ),
    "no_retries": ("No request had to be sent twice.", "没有请求需要重发。"),
    "query": ("query", "查询"),
    "document": ("document", "文档"),
    "pair": ("pair", "文本对"),
    # -- server
    "server": ("Server", "服务器"),
    "no_server": ("This run left no word of its server.", "本次运行没有留下服务器信息。"),
    "f_server": ("Address", "地址"),
    "f_version": ("Version", "版本"),
    "f_served": ("Served models", "提供的模型"),
    "f_max_model_len": ("Longest input, tokens", "最长输入（词元）"),
    "f_root": ("Weights", "权重"),
    "f_tokenize": ("Counts tokens", "可计词元"),
    "f_template": ("Rerank template", "重排模板"),
    "f_takes_instruction": ("Takes an instruction", "接受指令"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "unknown": ("not said", "未说明"),
    # -- what was sent
    "sent": ("What was sent", "发送内容"),
    "sent_help": (
        "The first exact strings that went to the server, by task. The instruction is marked.",
        "按任务列出最先发往服务器的原文，其中指令已标出。",
    ),
    "instructions": ("Instructions in use", "使用的指令"),
    "no_instruction": ("nothing was put before the texts", "文本前没有添加任何内容"),
    "uses": ("{first} and {count} others", "{first} 等（另有 {count} 项）"),
    "samples": ("Samples", "样本"),
    "no_samples": ("This run left no samples.", "本次运行没有留下样本。"),
    "samples_of": ("{count} samples", "{count} 个样本"),
    "samples_left_out": (
        "{count} more samples are in sent_samples.jsonl.",
        "其余 {count} 个样本见 sent_samples.jsonl。",
    ),
    "tokens": ("{count} tokens", "{count} 个词元"),
    "shortened": ("shortened here; {count} characters were sent", "此处有删节；实际发送 {count} 个字符"),
    # -- configuration
    "configuration": ("Configuration", "配置"),
    "no_config": ("This run left no configuration.", "本次运行没有留下配置。"),
    "config_help": (
        "Every value in force. Keys and headers are masked.",
        "全部生效的取值；密钥与请求头已隐去。",
    ),
    "versions": ("Versions", "版本"),
    # -- repeat
    "repeat": ("How to repeat it", "如何重复"),
    "repeat_install": ("Install the same versions", "安装相同版本"),
    "repeat_file": ("Save as run.yaml", "保存为 run.yaml"),
    "repeat_run": ("Run and compare", "运行并比较"),
    "repeat_key": (
        "VACC_API_KEY holds the server's key; leave the line out where the server needs none.",
        "VACC_API_KEY 为服务器密钥；服务器不需要密钥时可删去该行。",
    ),
    "copy": ("Copy", "复制"),
    "copied": ("Copied", "已复制"),
    "problems": ("What could not be read", "无法读取的内容"),
    "made_by": ("Made by evalscope-vacc {version}.", "由 evalscope-vacc {version} 生成。"),
    "download": ("Numbers as JSON", "下载 JSON 数据"),
}


def translator(language: str) -> Callable[..., str]:
    """Returns the function that gives a text by its name, filled in.

    Raises:
        KeyError: There is no such text, or no such language.
    """
    position = {name: i for i, name in enumerate(LANGUAGES)}[language]

    def text(name: str, **values: object) -> str:
        chosen = TEXTS[name][position]
        return chosen.format(**values) if values else chosen

    return text


# what results.compare and results.noise say, the longest patterns first; a sentence that is not here stays English
_CHINESE: tuple[tuple[str, str], ...] = (
    (r"the reference has no such row", "参考中没有这一行"),
    (r"this is the result of an? (\S+), the reference is an? (\S+)", r"这是 \1 的结果，而参考是 \2 的结果"),
    (r"the reference's metric is (.+)", r"参考的指标是 \1"),
    (r"the reference has several values for this row: (.+)", r"参考中这一行有多个取值：\1"),
    (r"the reference's score is not a finite number", "参考得分不是有限数"),
    (r"the published value is an outlier of the source itself", "已发布的数值在来源中本身就是离群值"),
    (r"the score is missing or not a finite number", "得分缺失或不是有限数"),
    (r"the score (\S+) is not a fraction from -1 to 1", r"得分 \1 不是 -1 到 1 之间的小数"),
    (r"the reference's (\S+) is not a fraction from -1 to 1", r"参考得分 \1 不是 -1 到 1 之间的小数"),
    (
        r"the same weights do not score more than the tolerance above themselves: other texts, data or candidates\?",
        "同样的权重不会高出自身得分超过允许范围：文本、数据或候选文档是否不同？",
    ),
    (
        r"beyond the tolerance, but within the noise of (\d+) queries \(p = (\S+)\)",
        r"超出允许范围，但在 \1 个查询的噪声之内（p = \2）",
    ),
    (r"the reference was run on (.+), this one on (.+)", r"参考运行于\1，本次运行于\2"),
    (r"the reference was run with (.+), this one with (.+)", r"参考使用 \1，本次使用 \2"),
    (r"mteb (\S+) here, (\S+) in the reference", r"本次使用 mteb \1，参考使用 \2"),
    (r"dataset revision (\S+) here, (\S+) in the reference", r"本次数据集版本为 \1，参考为 \2"),
    (r"vectors cut to (\d+) dimensions, (\d+) in the reference", r"向量截取为 \1 维，参考为 \2 维"),
    (r"vectors cut to (\d+) dimensions", r"向量截取为 \1 维"),
    (r"(.+) not recorded; (.+) is the catalog's default", r"未记录 \1；目录中的默认值为 \2"),
    (r"(.+) not recorded here \(the reference: (.+)\)", r"本次未记录 \1（参考：\2）"),
    (r"(.+) (\S+) here, not recorded in the reference", r"本次 \1 为 \2，参考未记录"),
    (r"first stage recorded as (.+) here, as (.+) in the reference", r"首阶段在本次记录为 \1，在参考中记录为 \2"),
    (r"prompts of one's own: (.+) here, (.+) in the reference", r"自定义提示：本次 \1，参考 \2"),
    (r"tolerance (\S+) for every row, as given", r"每一行的允许差值均为 \1（给定）"),
    (
        r"tolerance by dtype: float32 (\S+), float16 and bfloat16 (\S+); quantised weights (\S+) of .+ \(at least (\S+)\)",
        r"按数值格式确定允许差值：float32 为 \1，float16 与 bfloat16 为 \2；量化权重为参考得分的 \3（至少 \4）",
    ),
    (r"dtype not recorded: half precision assumed", "未记录数值格式：按半精度处理"),
    (r"the reference is in (\S+)", r"参考使用 \1"),
    (r"as given", "给定"),
    (r"(\S+): (\S+) of the reference", r"\1：参考得分的 \2"),
    (
        r"no scores are published under the name (.+?): say with --against .*",
        r"没有以 \1 为名发布的得分：请用 --against 指明权重来源的模型，或给出另一个结果文件夹。",
    ),
    (r"(.+): no scores are published under this name", r"\1：没有以此名称发布的得分"),
)
_PARTS = (("whole tasks", "完整任务"), ("samples a task", "个样本（每个任务）"), ("rerank template", "重排模板"))
_PATTERNS = tuple((re.compile(pattern, re.DOTALL), words) for pattern, words in _CHINESE)


def say(sentence: str, language: str) -> str:
    """Translates what the comparison says; a sentence that is not known stays as it is."""
    if language != "zh" or not sentence:
        return sentence
    for part in _PATTERNS:
        match = part[0].fullmatch(sentence)
        if match:
            said = match.expand(part[1])
            for english, chinese in _PARTS:
                said = said.replace(english, chinese)
            return said
    if "; " in sentence:
        return "；".join(say(part, language) for part in sentence.split("; "))
    return sentence
