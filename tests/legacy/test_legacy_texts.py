"""The texts that leave on the older line are those of the newer one."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from served_model import ServedModel

pytestmark = [pytest.mark.usefixtures("legacy_host"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize("profile", ["qwen-official", "mteb"])
@pytest.mark.shows("texts")
def test_each_task_and_side_gets_the_text_of_the_newest_line(shared: Path, encoder: ServedModel, profile: str) -> None:
    from mteb.encoder_interface import PromptType

    from evalscope_vacc.hosts.evalscope_legacy_models import EncoderFace
    from evalscope_vacc.models.encoder import VaccEncoder

    expected = json.loads((shared / "data" / "expected_texts_sample.json").read_text())
    options: dict[str, Any] = {"instruction_profile": profile, "store": "off"}
    if profile == "qwen-official":
        options["instruction_dict_path"] = str(shared / "facts" / "task_prompts.json")
    face = EncoderFace(VaccEncoder(encoder.name, api_base=encoder.base, **options))
    sides = {"query": PromptType.query, "document": PromptType("passage"), "None": None}
    wrong = {}
    checked = 0
    for name, rules in expected.items():
        for side, prefix in rules[profile].items():
            encoder.requests.clear()
            face.encode([f"{name} {side}"], task_name=name, prompt_type=sides[side], show_progress_bar=False)
            checked += 1
            if encoder.texts() != [f"{prefix}{name} {side}"]:
                wrong[name, side] = encoder.texts()
    face.close()
    assert not wrong
    assert checked > 64


def test_an_untitled_document_keeps_the_space_that_mteb_1_puts_before_it(
    hub: str, encoder: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb

    from evalscope_vacc.hosts.evalscope_legacy_models import EncoderFace
    from evalscope_vacc.models.encoder import VaccEncoder

    write_retrieval(tmp_path, [("d1", "Wings", "a plane flies"), ("d2", "", "a fish swims")])
    module = importlib.import_module("mteb.abstasks.AbsTaskRetrieval")
    loader = module.HFDataLoader
    monkeypatch.setattr(module, "HFDataLoader", lambda **_: loader(data_folder=str(tmp_path)))
    task = mteb.get_task("SciFact")
    face = EncoderFace(VaccEncoder(encoder.name, api_base=encoder.base, prompts={"query": "Q: "}, store="off"))
    mteb.MTEB(tasks=[task]).run(face, output_folder=None, verbosity=0)
    face.close()
    # MTEB 2.x sends "a fish swims"
    assert sorted(encoder.texts()) == [" a fish swims", "Q: what flies", "Q: what swims", "Wings a plane flies"]


def write_retrieval(folder: Path, documents: list[tuple[str, str, str]]) -> None:
    """A retrieval data set of two queries, in the form that EvalScope documents for custom data."""
    rows = [{"_id": key, "title": title, "text": text} for key, title, text in documents]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": "q1", "text": "what flies"}, {"_id": "q2", "text": "what swims"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n")
