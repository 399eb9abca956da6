"""Every finding in words: the only place where a check speaks English."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

State = Literal["ok", "warning", "wrong"]

# docs/checks.md lists each of these with its test; a test holds the two together
CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "reachable": "The server answers",
        "key": "The key is accepted",
        "model": "The model is served under this name",
        "version": "The server's version",
        "max-length": "The longest text that the server takes",
        "token-counts": "Tokens can be counted",
        "kind": "Embedding model or cross-encoder",
        "answers": "Answers are complete",
        "finite": "Every number is finite",
        "dimensions": "The size of a vector",
        "norm": "The length of a vector",
        "repeat": "The same text twice gives the same",
        "batch": "Alone and in a batch give the same",
        "order": "Answers belong to their texts",
        "base64": "base64 and plain numbers agree",
        "truncation": "The server cuts when it is asked to",
        "end-token": "A text that was cut keeps its end-of-sequence token",
        "whole-texts": "Texts within the limit are read to their end",
        "long-texts": "Texts past the limit",
        "template": "The reranker's template is applied once",
        "instruction": "An instruction reaches the model",
        "sanity": "Obvious questions find their answers",
        "spread": "Scores differ",
        "grain": "Scores are finely graded",
        "servers-agree": "All servers serve the same weights",
        "concurrency": "Requests are worked on side by side",
        "speed": "Time of a request",
        "time": "Everything was checked in time",
    }
)


class Words(NamedTuple):
    """A finding's state, and what is said: what was seen, what follows for scores, what to do; with ``{}`` for figures."""

    state: State
    seen: str
    meaning: str = ""
    action: str = ""


_REBOOT = "set encode_kwargs.batch_size: 1 to go on, and report it to whoever makes the server"
_SEE_PARITY = "compare with the weights in process: evalscope-vacc parity"
_NO_TEMPLATE_THERE = "start the server without --chat-template, then the template is applied here"

WORDS: Mapping[str, Words] = MappingProxyType(
    {
        # -- the server itself -----------------------------------------------------------------------------------
        "reachable.ok": Words("ok", "answers in {ms:.0f} ms"),
        "reachable.dead": Words(
            "wrong", "{error}", "nothing can be asked", "start the server, or correct api_base (host, port, scheme)"
        ),
        "reachable.engine": Words("wrong", "{error}", "the server lives, its engine does not", "restart the server"),
        "reachable.slow": Words(
            "wrong",
            "{error}",
            "a run would wait, then stop",
            "see whether the server is overloaded or still loading",
        ),
        "reachable.fault": Words("wrong", "{error}", "the server fails", "read the server's own log"),
        "key.ok": Words("ok", "the key is accepted"),
        "key.none": Words("ok", "no key is asked for"),
        "key.refused": Words(
            "wrong",
            "the key that was sent is refused ({error})",
            "nothing can be asked",
            "set api_key, or export VACC_API_KEY",
        ),
        "key.missing": Words(
            "wrong",
            "a key is asked for and none is configured ({error})",
            "nothing can be asked",
            "set api_key, or export VACC_API_KEY",
        ),
        "model.ok": Words("ok", "serves {name!r}"),
        "model.root": Words("ok", "serves {name!r}, loaded from {root}"),
        "model.unlisted": Words("warning", "the server does not list its models, so {name!r} is not confirmed"),
        "model.other": Words(
            "wrong", "{name!r} is not served; {near} is", "every request will be refused", "set model_name to {best!r}"
        ),
        "model.refused": Words(
            "wrong", "{error}", "every request will be refused", "set model_name to what /v1/models lists"
        ),
        "version.ok": Words("ok", "{version}"),
        "version.untold": Words("warning", "the server does not tell its version", "", "note it yourself"),
        "version.old": Words(
            "warning",
            "{version}",
            "older than the oldest vLLM (0.9.2) that this was tried with",
            "use 0.9.2 or later",
        ),
        "version.grainy": Words(
            "warning",
            "{version}",
            "vLLM up to 0.10.1 computes a reranker's last layer in bfloat16: its scores are grainy and tie",
            "use a later version for published comparisons",
        ),
        "max-length.ok": Words("ok", "{has} tokens; texts are cut at {limit}"),
        "max-length.own": Words("ok", "not told by the server; texts are cut at max_tokens = {wants}"),
        "max-length.unknown": Words(
            "warning",
            "the server does not tell it, and max_tokens is not set",
            "texts that are too long are refused or cut without a word",
            "set max_tokens",
        ),
        "max-length.less": Words(
            "warning",
            "the server takes {has} tokens, max_tokens is {wants}",
            "texts are cut at {has}: on tasks with long documents the score is another than with {wants}",
            "start the server with --max-model-len {wants} or more",
        ),
        "token-counts.tokenizer": Words("ok", "by the configured tokenizer"),
        "token-counts.server": Words("ok", "by the server's /tokenize"),
        "token-counts.unneeded": Words(
            "ok",
            "no /tokenize and no `tokenizer:`; the server cuts by itself",
            "how many texts were cut is not known afterwards",
        ),
        "token-counts.no-limit": Words(
            "ok", "no /tokenize and no `tokenizer:`; no limit is known that a text could exceed"
        ),
        "token-counts.none": Words(
            "warning",
            "the server has no /tokenize and no `tokenizer:` is configured",
            "no text can be cut here: a task with texts that may have more than {limit} tokens needs it",
            "set `tokenizer:` to the model's folder, its tokenizer.json or its hub name",
        ),
        # -- answers in general ----------------------------------------------------------------------------------
        "kind.encoder": Words("ok", "an embedding model"),
        "kind.cross-encoder": Words("ok", "a cross-encoder, asked at {path}"),
        "kind.scores": Words(
            "wrong",
            "it scores pairs and gives no vectors: {error}",
            "this is a cross-encoder, configured as an embedding model",
            "write is_cross_encoder: true",
        ),
        "kind.vectors": Words(
            "wrong",
            "it gives vectors and scores no pairs: {error}",
            "this is an embedding model, configured as a cross-encoder",
            "write is_cross_encoder: false",
        ),
        "kind.embeds": Words(
            "wrong",
            "/v1/embeddings answers, too: {path} gives the cosine of two vectors",
            "this is an embedding model, configured as a cross-encoder: reranking with it repeats the first stage",
            "write is_cross_encoder: false, or serve a reranker",
        ),
        "answers.ok": Words("ok", "one vector or score for each text, in all of {answers} answers"),
        "answers.bad": Words("wrong", "{error}", "a run would stop at this answer", "check `dialect` and the server"),
        "finite.ok": Words("ok", "no NaN, no infinity, no vector of zeros in {answers} answers"),
        "finite.not": Words(
            "wrong",
            "{error}",
            "NaN or infinity comes out of the model: an overflow in its number format, or a broken kernel",
            "serve with --dtype bfloat16 or float32 instead of float16, or without graph compilation (--enforce-eager)",
        ),
        "time.over": Words(
            "warning",
            "the server is too slow for a check of a minute; not asked, or not to the end: {left}",
            "what was not asked may be wrong",
            "see the findings `speed` and `reachable`; check again when the server is idle",
        ),
        # -- vectors ---------------------------------------------------------------------------------------------
        "dimensions.ok": Words("ok", "{size}"),
        "dimensions.known": Words("ok", "{size}, as in the catalog"),
        "dimensions.cut": Words("ok", "{size}, cut to {wanted} and renormalised here"),
        "dimensions.untrained": Words(
            "warning",
            "{size}, cut to {wanted} here",
            "{name} was not trained to be cut: expect a lower score",
        ),
        "dimensions.below": Words(
            "warning",
            "{size}, cut to {wanted} here",
            "{name} was trained to be cut down to {least}: expect a lower score",
        ),
        "dimensions.small": Words(
            "wrong",
            "vectors have {size} numbers, `dimensions` asks for {wanted}",
            "a vector can be cut, not made longer",
            "set dimensions to {size} or less, or remove it",
        ),
        "dimensions.other": Words(
            "wrong",
            "vectors have {size} numbers, {name} gives {known}",
            "another model is served under this name, or the server cuts its vectors",
            "serve the model of that name, or give the server another --served-model-name",
        ),
        "norm.ok": Words("ok", "1"),
        "norm.other": Words(
            "warning",
            "{length}, not 1",
            "cosine scores stay the same; whoever takes the dot product of two vectors gets something else",
            "if the model's card says normalised, see the server's pooler settings (normalize, softmax, activation)",
        ),
        "base64.ok": Words("ok", "the same vectors as numbers"),
        "base64.refused": Words("warning", "numbers cannot be had to compare with: {error}"),
        "base64.rounded": Words(
            "warning",
            "vectors as base64 and as numbers have a cosine of 1 - {gap:.1e}",
            "numbers are rounded in one of the two, or the server does not repeat itself (see `repeat`)",
        ),
        "base64.other": Words(
            "wrong",
            "vectors as base64 and as numbers have a cosine of {cosine:.4f}",
            "the server packs another number format or byte order than float32, little end first",
            "choose a `dialect` that asks for numbers (jina), and report it to whoever makes the server",
        ),
        # -- one text, one answer --------------------------------------------------------------------------------
        "repeat.ok": Words("ok", "{texts} texts asked twice: {measure} up to {gap:.1e}{like}, allowed {allowed:.1e}"),
        "repeat.differs": Words(
            "wrong",
            "the second answer to the same text differs from the first: {measure} {gap:.2g} for {bad} of {texts} texts, "
            "allowed {allowed:.1e}",
            "the prefix cache gives another answer than the computation does (seen with Qwen3 on accelerators)",
            "start the server with --no-enable-prefix-caching, and check again",
        ),
        "batch.ok": Words(
            "ok",
            "{batches} batches, each answer compared with that of the text alone: {measure} up to {gap:.1e}{like}, "
            "allowed {allowed:.1e}",
        ),
        "batch.differs": Words(
            "wrong",
            "in {bad} of {batches} batches an answer differs from that of the text alone: {measure} {gap:.2g}, "
            "allowed {allowed:.1e}",
            "what stands beside a text in a batch, or its position, changes its answer",
            "set encode_kwargs.batch_size: 1 to go on; try the server with --enforce-eager or --dtype float32",
        ),
        "batch.padding": Words(
            "wrong",
            "in {bad} of {batches} batches an answer differs from that of the text alone: {measure} {gap:.2g}, allowed "
            "{allowed:.1e}; the longest texts of each batch are right, shorter ones are not",
            "the padding beside longer texts in a batch is read as text: the attention mask, or the pooling, ignores it",
            "set encode_kwargs.batch_size: 1 to go on; try another version or backend of the server",
        ),
        "order.ok": Words(
            "ok", "{batches} batches, each answer its text's own; a fault in one of eight would show with {chance:.0%}"
        ),
        "order.swapped": Words(
            "wrong",
            "in {bad} of {batches} batches a text gets the vector of another: the text at position {place} gets the vector "
            "of the text at position {other}",
            "vectors belong to other texts than they say: every score is wrong",
            _REBOOT,
        ),
        "order.moved": Words(
            "wrong",
            "scores move between documents: in {bad} of {batches} batches, documents get each other's scores",
            "scores belong to other documents than they say: every ranking is wrong",
            _REBOOT,
        ),
        "order.sorted": Words(
            "wrong",
            "scores come in the same order whatever the order of the documents: in {bad} of {batches} batches, documents "
            "get each other's scores",
            "scores belong to other documents than they say: every ranking is wrong",
            _REBOOT,
        ),
        "order.equal": Words(
            "wrong",
            "in {bad} of {batches} batches a text that stands twice in the batch does not get its own answer: {measure} "
            "{gap:.2g}",
            "texts that repeat in one request get an answer that is not theirs",
            _REBOOT,
        ),
        # -- long texts ------------------------------------------------------------------------------------------
        "truncation.ok": Words("ok", "asked to keep {tokens} tokens it gives the vector of those tokens"),
        "truncation.partly": Words("ok", "asked to keep {tokens} tokens it does not read the rest"),
        "truncation.here": Words("ok", "long texts are cut here, by counted tokens"),
        "truncation.uncounted": Words(
            "warning", "the server reports no token counts", "whether it cuts cannot be told"
        ),
        "truncation.refused": Words(
            "warning",
            "truncate_prompt_tokens is refused: {error}",
            "a run asks the server to cut texts that are too long",
            "see `dialect`; the server may not be vLLM",
        ),
        "truncation.impossible": Words(
            "wrong",
            "truncate_prompt_tokens is refused: {error}",
            "a run asks the server to cut texts that are too long, and nothing can be counted here",
            "see `dialect`; the server may not be vLLM; or set `tokenizer:`",
        ),
        "truncation.ignored": Words(
            "warning",
            "asked to keep {tokens} tokens it gives the vector of the whole text",
            "truncate_prompt_tokens is ignored: texts that are too long are refused, or cut at the server's own length",
            "choose the `dialect` of this server",
        ),
        "truncation.nobody": Words(
            "warning",
            "the dialect {dialect!r} cannot ask for it, and tokens cannot be counted here",
            "a text that is too long for the server is refused by it",
            "set `tokenizer:`",
        ),
        "end-token.ok": Words("ok", "a text cut by the server has the vector of its beginning"),
        "end-token.lost": Words(
            "wrong",
            "a text cut to {tokens} tokens has a cosine of {cosine:.4f} with its own beginning of {tokens} tokens",
            "the server drops the end-of-sequence token, or keeps another part of the text: vectors of long texts are wrong",
            "do not set truncation_side on the server; or raise --max-model-len so that nothing is cut",
        ),
        "whole-texts.ok": Words(
            "ok", "texts of up to about {tokens} tokens, alike but for their end, get different answers"
        ),
        "whole-texts.untried": Words("ok", "not tried: no limit is known, or texts near it would take too long"),
        "whole-texts.end": Words(
            "wrong",
            "two texts of about {tokens} tokens that differ only in their end get the same answer",
            "texts are cut without a word after about {low} to {high} tokens, whatever token counts the server reports",
            "see the server's own length limit (max_seq_length, --max-model-len, --auto-truncate) and what stands before it",
        ),
        "whole-texts.beginning": Words(
            "wrong",
            "two texts of about {tokens} tokens that differ only in their beginning get the same answer",
            "the server keeps the end of a text instead of its beginning",
            "see the server's truncation side, and its length limit",
        ),
        "whole-texts.alike": Words(
            "wrong",
            "different documents of about {tokens} tokens all score {score:.4g}",
            "the end of the prompt is cut off, or long documents are not read: their ranking is arbitrary",
            "see the server's length limit; apply the template here (rerank_template: auto)",
        ),
        "long-texts.ok": Words("ok", "cut to {limit} tokens when asked, refused past {longest} when not"),
        "long-texts.refused": Words("ok", "refused past {longest} tokens: {error}"),
        "long-texts.untried": Words(
            "ok", "not tried: a text of {limit} tokens would take this server about {seconds:.0f} s"
        ),
        "long-texts.pair": Words("ok", "a pair of more than {limit} tokens is cut when asked (scores {scores})"),
        "long-texts.here": Words("ok", "documents are cut here, inside their template, to {limit} tokens a pair"),
        "long-texts.uncut": Words(
            "wrong",
            "a text of more than {limit} tokens is refused although it may be cut: {error}",
            "a run would stop at the first long text",
            "set max_tokens below the server's --max-model-len",
        ),
        "long-texts.shorter": Words(
            "warning",
            "a text of more than {limit} tokens was cut to {tokens}, not {limit}",
            "the server reads less of long texts than the run believes",
            "set max_tokens to {tokens}, or start the server with a larger --max-model-len",
        ),
        "long-texts.silent": Words(
            "warning",
            "a text of more than {longest} tokens is accepted without being asked to cut it",
            "the server cuts without a word: nobody knows which texts were cut",
            "set max_tokens to what the model was evaluated with",
        ),
        "long-texts.uncounted": Words(
            "warning",
            "tokens cannot be counted, so a document cannot be cut inside its template",
            "a task with pairs that may have more than {limit} tokens needs it",
            "set `tokenizer:`",
        ),
        "long-texts.template": Words(
            "warning",
            "the server wraps each pair in its template, then cuts to {limit} tokens",
            "of a pair that is too long it cuts off the template's end: all such documents of a query get meaningless scores",
            "start it without --chat-template and write rerank_template: auto, or see that no pair is that long",
        ),
        # -- meaning ---------------------------------------------------------------------------------------------
        "template.server": Words("ok", "applied by the server ({counted})"),
        "template.here": Words("ok", "{template}, applied here; the server has none ({counted})"),
        "template.here-unsure": Words(
            "warning",
            "{template}, applied here; the server has none ({counted})",
            "whether the server has one of its own, too, cannot be told",
        ),
        "template.none": Words("ok", "none here and none on the server ({counted})"),
        "template.unsure": Words(
            "warning", "none here; the server reports no token counts", "whether it has one cannot be told"
        ),
        "template.doubled": Words(
            "wrong",
            "the server wraps every pair in a template ({counted}), and rerank_template: {wanted} would do it again",
            "applied twice nothing fails, and the scores are wrong",
            "start the server without --chat-template, or write rerank_template: auto",
        ),
        "template.deaf": Words(
            "wrong",
            "the server's template ({counted}) takes no instruction from a request",
            "vLLM 0.14 to 0.21: every task is scored with the template's own instruction; a run with auto stops",
            f"{_NO_TEMPLATE_THERE}; or write rerank_template: none",
        ),
        "template.missing": Words(
            "wrong",
            "none here and none on the server ({counted}); {model} was trained with the template {family}",
            "its scores are close to random without it (NFCorpus 0.257 instead of 0.335, vLLM #21681)",
            "write rerank_template: auto",
        ),
        "instruction.template": Words("ok", "a part of the template that is applied here"),
        "instruction.no-place": Words("ok", "none: no template has a place for one"),
        "instruction.arrives": Words("ok", "each request's own instruction reaches the server's template"),
        "instruction.unread": Words(
            "wrong",
            "two instructions that have nothing in common give {pairs} pairs exactly the same scores",
            "every task is scored with one and the same instruction, although the server counts the tokens of another",
            f"{_NO_TEMPLATE_THERE}: write rerank_template: auto",
        ),
        "instruction.ignored": Words(
            "warning",
            "the server's template ignores an instruction in the request",
            "every task is scored with the template's own instruction (vLLM up to 0.21)",
            "start the server without --chat-template and write rerank_template: auto",
        ),
        "instruction.none": Words("ok", "nothing is put before a text (profile {profile})"),
        "instruction.shown": Words("ok", "put before a text without a task: {shown} (profile {profile})"),
        "instruction.absent": Words(
            "warning",
            "nothing is put before a text (profile {profile})",
            "this model was trained with an instruction before each query: expect a lower score",
            "remove instruction_profile, or set it",
        ),
        "instruction.stops": Words("wrong", "a run would stop: {error}", "", "do what it says before the run"),
        "sanity.ok": Words("ok", "{seen} questions find their answer"),
        "sanity.weak": Words(
            "warning",
            "{seen} questions find their answer",
            "the model is weak in a language, or something is not as in training (prefix, template, pooling)",
            _SEE_PARITY,
        ),
        "sanity.words": Words(
            "warning",
            "{seen} questions find their answer",
            "it finds what shares words, not what has the same meaning: a bag of words, or something is not as in training",
            _SEE_PARITY,
        ),
        "sanity.random": Words(
            "wrong",
            "{seen} questions find their answer; all texts are alike (mean cosine {alike:.2f})",
            "it finds what shares words, not what has the same meaning, as random weights do: they were not loaded, or are "
            "another model's",
            f"see the server's log for weights that were not initialised; {_SEE_PARITY}",
        ),
        "sanity.chance": Words(
            "wrong",
            "{seen} questions find their answer",
            "not better than chance: wrong or random weights, another pooling, a missing or doubled template",
            _SEE_PARITY,
        ),
        "sanity.same": Words(
            "wrong",
            "every question is equally near to every answer ({value:.4g})",
            "the model answers the same to everything: every score will be arbitrary",
            "see the server's log: wrong weights, pooling or head",
        ),
        "spread.ok": Words("ok", "{pairs} pairs score from {low:.4f} to {high:.4f}"),
        "spread.none": Words(
            "wrong",
            "all {pairs} pairs score {high:.6g}",
            "the classification head was not loaded, or the end of the prompt is cut off: the ranking is arbitrary",
            "for an original Qwen3-Reranker see its --hf-overrides (evalscope-vacc serve prints them); else convert the "
            "weights",
        ),
        "grain.ok": Words("ok", "{different} different scores of {pairs} pairs"),
        "grain.ties": Words(
            "warning",
            "{different} different scores of {pairs} pairs",
            "good documents tie, and the order of ties decides the ranking",
            "serve with --dtype float32; ask for raw scores where the server has them",
        ),
        "grain.format": Words(
            "warning",
            "{different} different scores of {pairs} pairs, all on the grid of {grid}",
            "good documents tie, and the order of ties decides the ranking",
            "serve with --dtype float32; vLLM up to 0.10.1 computes the last layer in bfloat16 whatever is asked",
        ),
        "grain.decimals": Words(
            "wrong",
            "{different} different scores of {pairs} pairs, all of {digits} decimals at most",
            "scores are rounded for show: good documents tie, and the order of ties decides the ranking",
            "ask the server, or what stands before it, for scores that are not rounded",
        ),
        # -- several servers, time -------------------------------------------------------------------------------
        "servers-agree.ok": Words("ok", "agrees with {other}, differences up to {gap:.1e}"),
        "servers-agree.differ": Words(
            "wrong",
            "its {what} differ from those of {other} by {gap:.2g}, allowed {allowed:.1e}",
            "the servers of this model serve different weights or settings; results would be a mixture",
            "start them alike",
        ),
        "speed.ok": Words("ok", "{times}"),
        "speed.slow": Words(
            "warning", "{times}", "slow for one short text", "see whether something else uses the device"
        ),
        "speed.timeout": Words(
            "warning",
            "{times}",
            "a request of {batch} texts takes about {expected:.0f} s, one of long texts more; timeout_s is {timeout:g}",
            "lower encode_kwargs.batch_size or raise timeout_s",
        ),
        "concurrency.one": Words("ok", "max_concurrency is 1: one request at a time"),
        "concurrency.quick": Words("ok", "not measured: a request takes only {ms:.0f} ms"),
        "concurrency.late": Words("ok", "not measured: there is no time left for it"),
        "concurrency.ok": Words(
            "ok", "{wide} requests: {alone} one by one, {together} with {wide} at a time, {gain:.1f} times as fast"
        ),
        "concurrency.none": Words(
            "warning",
            "{wide} requests: {alone} one by one, {together} with {wide} at a time",
            "the server, or a proxy before it, works on one request after the other: max_concurrency gains nothing",
            "see the server's limits (--max-num-seqs, workers), or give several servers in api_base",
        ),
        # a request that was refused for a reason of the server's own, whatever it was to answer
        **{
            f"{check}.request": Words(
                "wrong", "{error}", "a run would be refused in the same way", "see the server's words"
            )
            for check in CHECKS
        },
    }
)

# of parity: what exceeds a threshold, and what the differences look like
SIGNS: Mapping[str, str] = MappingProxyType(
    {
        "differs.size": "vectors of {served} numbers against {reference}",
        "differs.cosine": "least cosine 1 - {gap:.1e}, allowed 1 - {allowed:g}",
        "differs.number": "largest difference of a number {gap:.1e}, allowed {allowed:g}",
        "differs.neighbours": "{kept:.1%} of the {count} nearest neighbours kept, wanted {wanted:.0%}",
        "differs.score": "largest difference of a score {gap:.2g}, allowed {allowed:g}",
        "differs.same": "all served scores are the same",
        "differs.tau": "Kendall's tau {tau:.3f}, wanted {wanted:g}",
        "looks.size": "another model, or vectors that were cut (`dimensions`)",
        "looks.order": "the order is wrong: {count} texts have another text's vector (text {text} has that of text {other})",
        "looks.language": "only {language} texts differ: another tokenizer, or a text encoding on the way",
        "looks.rounded": (
            "rounding: all texts differ a little, long and short alike (relative error {error:.1e}), as with {dtype}; if the "
            "server computes in it, say --dtype {dtype}"
        ),
        "looks.used": (
            "the same weights used in another way: neighbours are mostly kept, vectors are not; an instruction or prompt on "
            "one side, other special tokens, another pooling or normalisation"
        ),
        "looks.weights": "other weights: not even the neighbours are kept",
        "looks.cut": (
            "texts are cut: those of up to about {low} tokens are the same, those from about {high} on differ; compare "
            "max_tokens, the server's --max-model-len and the reference's own limit"
        ),
        "looks.head": (
            "the classification head was not loaded, or the prompt's end is cut off: every pair scores the same"
        ),
        "looks.documents": "the order is wrong: a query's scores are all there, at other documents",
        "looks.turned": "the sign is turned: the worst document scores highest",
        "looks.activation": (
            "another activation: one side gives logits, the other their sigmoid; the ranking is the same"
        ),
        "looks.prompt-rounded": (
            "rounding, or a small difference of the prompt: the ranking is nearly kept (a lost newline makes 0.006)"
        ),
        "looks.prompt": "another prompt: a template or instruction on one side only, or applied twice",
        "looks.no-template": "other weights, or the template is missing on one side",
        "pooled.first": "another pooling: the vectors are those of the first token (CLS)",
        "pooled.last": "another pooling: the vectors are those of the last token",
        "pooled.mean": "another pooling: the vectors are the mean of all tokens",
        "pooled.maximum": "another pooling: the vectors are the maximum over all tokens",
        "pooled.inner": "the special tokens are left out of the mean",
        "cut.32": "texts are cut: the vectors are those of the first 32 tokens",
        "cut.64": "texts are cut: the vectors are those of the first 64 tokens",
        "cut.128": "texts are cut: the vectors are those of the first 128 tokens",
        "cut.256": "texts are cut: the vectors are those of the first 256 tokens",
        "cut.512": "texts are cut: the vectors are those of the first 512 tokens",
        "cut.characters": "texts are cut: the vectors are those of the first 512 characters",
        "read.lower": "texts are lower-cased before they reach the tokenizer",
        "read.accents": "accents are stripped from the texts",
        "read.emoji": "emoji and other symbols are stripped from the texts",
        "read.newlines": "newlines are removed from the texts",
        "read.spaces": "spaces around the texts are stripped",
        "read.punctuation": "punctuation is removed from the texts",
        "read.latin-1": "texts are sent as UTF-8 and read as Latin-1",
        "read.prefix": 'the server puts "query: " before each text',
        "read.instruction": "the server puts an instruction for queries before each text",
    }
)
