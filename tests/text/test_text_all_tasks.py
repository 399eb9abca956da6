"""The profiles on MTEB's own tasks: against the recorded sample, and against what MTEB's own class makes of each."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalscope_vacc.models.tasks import side_of, task_info
from evalscope_vacc.text.instructions import make_profile

pytestmark = pytest.mark.host

BENCHMARKS = ("MTEB(eng, v2)", "MTEB(cmn, v1)", "MTEB(Multilingual, v2)", "MTEB(Code, v1)")
WITH_SIDES = {"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"}


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    """Metadata by task name, of the 190 tasks of the four benchmarks."""
    mteb = pytest.importorskip("mteb")
    return {task.metadata.name: task.metadata for name in BENCHMARKS for task in mteb.get_benchmark(name).tasks}


def sides(task: Any) -> tuple[Any, ...]:
    return ("query", "document") if task.type in WITH_SIDES else (None,)


def test_the_sample_of_recorded_texts_is_met_exactly(metadata: dict[str, Any], shared: Path) -> None:
    sample = json.loads((shared / "data" / "expected_texts_sample.json").read_text())
    path = str(shared / "facts" / "task_prompts.json")
    profiles = {
        "qwen-official": make_profile("qwen-official", instruction_dict_path=path),
        "mteb": make_profile("mteb"),
    }
    wrong = [
        (name, profile, side)
        for name, expected in sample.items()
        for profile, made in profiles.items()
        for side, text in expected[profile].items()
        if made.prefix(task_info(metadata[name]), None if side == "None" else side) != text
    ]
    assert len(sample) == 64
    assert wrong == []


def test_the_two_profiles_differ_on_142_of_190_tasks(metadata: dict[str, Any], shared: Path) -> None:
    official = make_profile("qwen-official", instruction_dict_path=str(shared / "facts" / "task_prompts.json"))
    mteb = make_profile("mteb")
    differing = [
        name
        for name, task in metadata.items()
        if any(official.prefix(task_info(task), side) != mteb.prefix(task_info(task), side) for side in sides(task))
    ]
    assert (len(metadata), len(differing)) == (190, 142)


def test_a_name_says_as_much_as_the_metadata(metadata: dict[str, Any]) -> None:
    for name, task in metadata.items():
        assert task_info(name) == task_info(task), name
        assert task_info(task).default_prompt, name


@pytest.mark.filterwarnings("ignore:Prompt type 'document' not found")
def test_the_mteb_profile_is_what_mtebs_own_class_sends(metadata: dict[str, Any]) -> None:
    if importlib.util.find_spec("mteb.models.model_implementations") is None:
        pytest.skip("this MTEB keeps its own class elsewhere")
    qwen3 = pytest.importorskip("mteb.models.model_implementations.qwen3_models")
    from mteb.models.instruct_wrapper import InstructSentenceTransformerModel
    from mteb.types import PromptType

    class Listening:
        """Stands where sentence-transformers would, and keeps the prompt that it is handed."""

        def encode(self, texts: Any, *, prompt: str | None = None, **_: Any) -> Any:
            import numpy as np

            self.prompt = prompt or ""
            return np.zeros((len(texts), 1), dtype="float32")

    class Inputs(list[Any]):
        """What the class reads of a data loader beside its batches."""

        dataset = SimpleNamespace(features={"text": None})

    # the class as the model's loader makes it, but for the weights
    model = InstructSentenceTransformerModel.__new__(InstructSentenceTransformerModel)
    model.instruction_template = qwen3.instruction_template
    model.apply_instruction_to_passages = False
    model.prompts_dict = None
    model.model = Listening()
    for absent in ("fps", "max_frames", "num_frames", "min_frames", "target_sampling_rate", "max_samples"):
        setattr(model, absent, None)
    profile = make_profile("mteb")
    for name, task in metadata.items():
        for side in (None, "query", "document"):
            prompt_type = None if side is None else PromptType(side)
            model.encode(
                Inputs([{"text": ["x"]}]),
                task_metadata=task,
                hf_split="test",
                hf_subset="default",
                prompt_type=prompt_type,
            )
            assert profile.prefix(task_info(task), side_of(prompt_type)) == model.model.prompt, (name, side)
