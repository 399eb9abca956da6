"""The full check of an embedding server: one in order, and one with each fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sound_server import SoundServer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing

from evalscope_vacc.checks.findings import Report
from evalscope_vacc.checks.run import check_model
from evalscope_vacc.checks.texts import CHARACTERS
from evalscope_vacc.config import configure
from evalscope_vacc.messages import Words


def report_of(server: SoundServer, **keys: object) -> Report:
    return check_model(configure({"model_name": server.name, "api_base": server.base, **keys}))


def finding(server: SoundServer, check: str, **keys: object):
    found = report_of(server, **keys).of(check)
    assert found is not None, f"no finding {check}"
    return found


def test_a_server_in_order_has_nothing_but_ok() -> None:
    with SoundServer() as server:
        report = report_of(server)
    assert {f.check: f.state for f in report.findings if f.state != "ok"} == {}
    assert report.exit_status == 0
    assert report.kind == "encoder"
    wanted = {"reachable", "key", "model", "version", "max-length", "kind", "dimensions", "norm", "finite", "repeat"}
    wanted |= {"batch", "order", "base64", "truncation", "end-token", "whole-texts", "characters", "long-texts"}
    wanted |= {"sanity", "speed", "concurrency"}
    assert wanted <= {f.check for f in report.findings}


def test_a_server_that_reports_characters_for_tokens_is_not_taken_to_cut() -> None:
    with SoundServer(faults=("counts characters", "no tokenize")) as server:
        found = finding(server, "whole-texts")
    assert found.state == "ok"


def test_a_server_that_takes_fewer_texts_than_a_run_would_send_is_in_order() -> None:
    with SoundServer(faults=("sixteen at most",)) as server:
        assert report_of(server).state == "ok"


@pytest.mark.parametrize(
    ("fault", "check", "state", "says"),
    [
        ("wrong order", "order", "wrong", "gets the vector of the text at position"),
        ("second differs", "repeat", "wrong", r"second answer .* cosine of 0\.|prefix cache"),
        ("one wrong in eight", "batch", "wrong", r"in \d of 25 batches"),
        ("sixteen, then the first", "batch", "wrong", "in a request of 32 texts, as a run sends them"),
        ("two swapped in eight", "order", "wrong", "gets the vector of the text at position"),
        ("padding counts", "batch", "wrong", "padding is read as text"),
        ("cuts at 100 silently", "whole-texts", "wrong", "cut silently after about"),
        ("cuts at 480 silently", "whole-texts", "wrong", "after about 4[0-9]{2} to 512 tokens"),
        ("keeps the last 100", "whole-texts", "wrong", "keeps the end of a text"),
        ("capitals count", "characters", "wrong", "only in capitals have the same tokens but different vectors"),
        ("depends on neighbours", "batch", "wrong", "depends on the other texts in its batch"),
        ("nan", "finite", "wrong", "not a finite number"),
        ("nan for emoji", "finite", "wrong", "not a finite number"),
        ("long vectors", "norm", "warning", "7, not 1"),
        ("big end first", "base64", "wrong", "little-endian float32"),
        ("one too few", "answers", "wrong", r"\d vectors came for \d texts"),
        ("all alike", "sanity", "wrong", "equally similar"),
        ("end lost", "end-token", "wrong", "end-of-sequence token"),
        ("keeps the end", "end-token", "wrong", "another part of the text"),
        ("ignores truncation", "truncation", "warning", "ignored"),
        ("refuses truncation", "truncation", "warning", "not supported"),
        ("cuts silently", "long-texts", "warning", "silently"),
        ("cuts short", "long-texts", "warning", "was cut to 256, not 512"),
        ("no counts", "truncation", "warning", "no token counts"),
        ("no list", "model", "warning", "not confirmed"),
    ],
)
def test_each_fault_is_found_and_said(fault: str, check: str, state: str, says: str) -> None:
    with SoundServer(faults=(fault,)) as server:
        report = report_of(server)
    found = report.of(check)
    assert found is not None
    assert found.state == state
    assert re.search(says, f"{found.seen} {found.meaning}"), found
    assert report.exit_status == int(report.state == "wrong")
    assert state != "wrong" or report.exit_status == 1


@pytest.mark.parametrize(
    ("fault", "says"), [("second rounded", "like rounding in bfloat16"), ("grainy", "allowed 3.0e-04")]
)
def test_rounding_is_in_order_and_said(fault: str, says: str) -> None:
    with SoundServer(faults=(fault,)) as server:
        report = report_of(server)
    assert report.exit_status == 0
    assert says in report.of("repeat").seen
    assert report.of("batch").state == "ok"


@pytest.mark.slow
def test_a_fault_of_one_batch_in_eight_is_found_by_nearly_every_check() -> None:
    found = 0
    for seed in range(40):
        with SoundServer(faults=("one wrong in eight",), chance=seed) as server:
            found += report_of(server).exit_status
    # the chance of one check is 0.96; 34 of 40 or fewer would come once in a thousand times
    assert found > 34


def test_no_finding_is_in_order_where_nothing_was_answered() -> None:
    with SoundServer() as server:
        report = report_of(server, dialect="infinity")
    assert report.exit_status == 1
    assert not {"finite", "answers", "repeat", "norm"} & {f.check for f in report.findings if f.state == "ok"}
    assert [f.check for f in report.having("wrong")] == ["kind"]


@pytest.mark.parametrize("fault", ["wrong order", "depends on neighbours", "second differs", "big end first"])
def test_no_other_question_takes_the_blame(fault: str) -> None:
    blamed = {"wrong order": {"order", "sanity"}, "depends on neighbours": {"batch", "sanity"}}
    blamed |= {"second differs": {"repeat", "batch"}, "big end first": {"base64", "norm", "sanity", "finite"}}
    with SoundServer(faults=(fault,)) as server:
        report = report_of(server)
    assert {f.check for f in report.findings if f.state == "wrong"} <= blamed[fault]


def test_a_prefix_of_one_block_is_shared_by_the_texts_that_are_sent_twice() -> None:
    from evalscope_vacc.checks.texts import LONG_1, LONG_2

    shared = next(i for i, (a, b) in enumerate(zip(LONG_1, LONG_2, strict=False)) if a != b)
    # a word is at least one token, and the smallest models take 256
    assert len(LONG_1[:shared].split()) > 110
    assert len(LONG_1) < 256 * 4


def test_vectors_smaller_than_dimensions_are_wrong() -> None:
    with SoundServer(size=64) as server:
        found = finding(server, "dimensions", dimensions=128)
    assert (found.state, found.action) == ("wrong", "set dimensions to 64 or less, or remove it")


def test_a_matryoshka_size_is_cut_here() -> None:
    with SoundServer(size=64) as server:
        found = finding(server, "dimensions", dimensions=32)
    assert (found.state, found.seen) == ("ok", "64, cut to 32 and renormalised here")


def test_another_size_than_the_catalogs_is_wrong() -> None:
    with SoundServer("Qwen3-Embedding-0.6B", size=64, max_model_len=8192) as server:
        report = report_of(server)
    assert report.of("dimensions").state == "wrong"
    assert "Qwen3-Embedding-0.6B gives 1024" in report.of("dimensions").seen


def test_the_catalogs_size_and_limit_are_ok() -> None:
    with SoundServer("Qwen3-Embedding-0.6B", size=1024, max_model_len=8192) as server:
        report = report_of(server)
    assert report.of("dimensions").seen == "1024, as in the catalog"
    assert report.of("max-length").state == "ok"


def test_a_size_below_what_the_model_was_trained_for_is_a_warning() -> None:
    with SoundServer("Qwen3-Embedding-0.6B", size=1024, max_model_len=8192) as server:
        assert finding(server, "dimensions", dimensions=16).state == "warning"


def test_a_server_that_takes_less_than_was_published_is_a_warning() -> None:
    with SoundServer("Qwen3-Embedding-0.6B", size=1024, max_model_len=512) as server:
        found = finding(server, "max-length")
    assert found.state == "warning"
    assert "--max-model-len 8192" in found.action


def test_a_cross_encoder_configured_as_an_encoder_is_wrong() -> None:
    with SoundServer(kind="cross-encoder") as server:
        report = report_of(server)
    assert report.of("kind").state == "wrong"
    assert report.of("kind").action == "write is_cross_encoder: true"
    assert report.of("repeat") is None


@pytest.mark.slow
def test_requests_that_wait_for_each_other_are_found() -> None:
    with SoundServer(faults=("serial",), delay_s=0.1) as server:
        found = finding(server, "concurrency")
    assert found.state == "warning"
    with SoundServer(delay_s=0.1) as server:
        found = finding(server, "concurrency")
        assert server.most_in_flight == 4
    assert found.state == "ok"
    assert float(re.search(r"([\d.]+) times as fast", found.seen).group(1)) > 1.5


def test_a_request_that_takes_long_beside_the_timeout_is_a_warning() -> None:
    with SoundServer(delay_s=0.05) as server:
        found = finding(server, "speed", timeout_s=0.3)
    assert found.state == "warning"
    assert "timeout_s" in found.action


def test_a_server_that_does_not_count_is_only_a_question_where_something_is_cut_here() -> None:
    with SoundServer(faults=("no tokenize",)) as server:
        assert finding(server, "token-counts").state == "ok"
        assert finding(server, "token-counts", dialect="openai").state == "warning"
        assert finding(server, "truncation", dialect="openai").state == "warning"


def test_two_servers_with_other_weights_are_wrong_together() -> None:
    with SoundServer() as one, SoundServer(seed="other") as two:
        report = check_model(configure({"model_name": one.name, "api_base": [one.base, two.base]}))
        same = [one.base, one.base.replace("127.0.0.1", "localhost")]
        alike = check_model(configure({"model_name": one.name, "api_base": same}))
    assert report.of("servers-agree").state == "wrong"
    assert alike.of("servers-agree").state == "ok"
    assert {f.server for f in report.findings} == {one.base, two.base}


def test_a_check_ends_in_its_time() -> None:
    with SoundServer(delay_s=0.4) as server:
        report = check_model(configure({"model_name": server.name, "api_base": server.base}), budget_s=2)
    assert report.seconds < 4
    late = report.of("time")
    assert late.state == "warning"
    assert "sanity" in late.seen


def test_the_instruction_in_force_is_shown() -> None:
    with SoundServer() as server:
        assert "no instruction prefix" in finding(server, "instruction").seen
        assert "'Q: '" in finding(server, "instruction", prompts={"query": "Q: "}).seen
    with SoundServer("Qwen3-Embedding-0.6B", size=1024, max_model_len=8192) as server:
        assert finding(server, "instruction", instruction_profile="none").state == "warning"
        shown = finding(server, "instruction", instruction_profile="mteb")
    assert shown.state == "ok"
    assert "Instruct: " in shown.seen


def test_a_dictionary_that_is_not_there_is_told_before_the_run() -> None:
    with SoundServer("Qwen3-Embedding-0.6B", size=1024, max_model_len=8192) as server:
        found = finding(server, "instruction", model_kwargs={"instruction_dict_path": "nowhere/prompts.json"})
    # a run would stop at its first query
    assert found.state == "wrong"
    assert "nowhere" in found.seen


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ((), "of 12 kinds of characters the tokenizer tells 6 apart, and so do the vectors"),
        (("by character",), "tells 12 apart"),
        (("by character", "grainy"), "tells 12 apart"),
        (("made-up tokens",), "does not list the model's tokens"),
        (("no tokenize",), "does not list the model's tokens"),
        (("tokenize fails",), "does not list the model's tokens"),
        (("by character", "loses capitals"), "tells 12 apart"),
    ],
)
def test_characters_are_compared_where_the_tokens_are_known(faults: tuple[str, ...], says: str) -> None:
    with SoundServer(faults=faults) as server:
        report = report_of(server)
    found = report.of("characters")
    assert found is not None
    assert found.state == "ok"
    assert says in found.seen
    assert report.of("sanity") is not None
    assert report.of("reachable").state == "ok"


@pytest.mark.parametrize("name", [name for name in CHARACTERS if name != "capitals"])
def test_characters_that_are_lost_are_named_in_both_languages(name: str) -> None:
    with SoundServer(faults=("by character", f"loses {name}")) as server:
        found = finding(server, "characters")
    assert found.code == "characters.lost"
    assert found.state == "wrong"
    for words in (Words(), Words("zh")):
        assert words(f"characters_{name}") in found.say("seen", words)


def test_texts_that_are_encoded_again_have_other_token_counts() -> None:
    with SoundServer(faults=("by character", "re-encodes")) as server:
        found = finding(server, "characters")
    assert found.code == "characters.counted"
    assert "accents, emoji, traditional Chinese characters" in found.seen


def test_a_tokenizer_of_ones_own_shows_what_the_server_does_not_tell(tmp_path: Path) -> None:
    vocabulary = {"[UNK]": 0} | {chr(code): code for code in range(1, 0x2FFF)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    tokenizer.post_processor = TemplateProcessing(single="$A [UNK]", special_tokens=[("[UNK]", 0)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with SoundServer(faults=("no tokenize", "by character", "loses punctuation")) as server:
        found = finding(server, "characters", tokenizer=str(tmp_path / "tokenizer.json"))
    assert found.code == "characters.lost"
    assert found.state == "warning", "the tokenizer may be another model's"
    assert "punctuation" in found.seen
