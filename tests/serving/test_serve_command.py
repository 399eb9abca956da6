from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evalscope_vacc import catalog
from evalscope_vacc.cli.app import app
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.serving.command import RUNTIMES, ServeOptions, build_command
from evalscope_vacc.serving.images import parse_version, vacc_version

GOLDEN = Path(__file__).parent / "golden"

# The commands of the vendor's guide, argument by argument (VastModelZOO, nlp/text2vec/qwen3/vllm and bge/vllm).
QWEN3_OVERRIDES = (
    '{"architectures": ["Qwen3ForSequenceClassification"],"classifier_from_token": ["no", "yes"],'
    '"is_original_qwen3_reranker": true}'
)
IMAGE = "harbor.vastaitech.com/ai_deliver/vllm_vacc"


def guide(device: str, name: str, port: int, tag: str, *vllm: str) -> list[str]:
    return [
        *("docker", "run", "-e", f"VACC_VISIBLE_DEVICES={device}", "--privileged=true", "--shm-size=256g"),
        *("--name", name, "-v", "/path/to/model:/weights/", "-p", f"{port}:{port}", "--ipc=host", f"{IMAGE}:{tag}"),
        *("vllm", "serve", *vllm),
    ]


def built(model: str, **options: Any) -> list[str]:
    return list(build_command(catalog.get(model), ServeOptions(**options)).argv)


@pytest.mark.parametrize(("tag", "task"), [("VVI-25.12.SP1", True), ("VVI-26.02", False), ("VVI-26.08", False)])
def test_the_guides_two_commands_are_reproduced_argument_by_argument(tag: str, task: bool) -> None:
    assert built("Qwen3-Embedding-0.6B", weights="/path/to/model", image_tag=tag) == guide(
        *("0", "vllm_service_embedding", 8000, tag, "/weights/Qwen3-Embedding-0.6B", "--trust-remote-code"),
        *("--enforce-eager", "--host", "0.0.0.0", "--port", "8000", *(["--task", "embed"] if task else [])),
        *("--served-model-name", "Qwen3-Embedding-0.6B"),
    )
    assert built("Qwen3-Reranker-0.6B", weights="/path/to/model", image_tag=tag, devices=("1",), port=8001) == guide(
        *("1", "vllm_service_reranker", 8001, tag, "/weights/Qwen3-Reranker-0.6B", "--hf_overrides", QWEN3_OVERRIDES),
        *("--enforce-eager", "--host", "0.0.0.0", "--port", "8001", *(["--task", "score"] if task else [])),
        *("--served-model-name", "Qwen3-Reranker-0.6B"),
    )


def test_the_guides_bge_command_is_reproduced_argument_by_argument() -> None:
    assert built("bge-m3", weights="/path/to/model", container_name="vllm_service") == guide(
        *("0", "vllm_service", 8000, "VVI-26.02", "/weights/bge-m3", "--tensor-parallel-size", "1"),
        *("--enforce-eager", "--host", "0.0.0.0", "--port", "8000", "--served-model-name", "bge-m3"),
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_command_of_every_model_is_the_golden_one(runtime: str) -> None:
    weights = None if runtime == "vllm" else "/path/to/model"
    options = ServeOptions(runtime=runtime, weights=weights)
    text = "".join(f"# {e.name}\n{build_command(e, options).shell()}\n" for e in catalog.entries() if not e.rules_only)
    golden = GOLDEN / f"{runtime}.txt"
    if os.environ.get("EVALSCOPE_VACC_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@given(
    st.sampled_from(catalog.entries()),
    st.sampled_from(RUNTIMES),
    st.text(st.characters(exclude_characters="\0:"), min_size=1, max_size=20),
    st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8), max_size=3),
)
def test_a_shell_reads_exactly_the_arguments(entry: catalog.Entry, runtime: str, folder: str, extra: list[str]) -> None:
    options = ServeOptions(runtime=runtime, weights=f"/w/{folder}", extra=tuple(extra))
    try:
        command = build_command(entry, options)
    except ConfigError:
        assert not folder.isprintable() or any(word.startswith("-") for word in extra)
        return
    assert shlex.split(command.shell()) == list(command.argv)
    assert command.argv[len(command.argv) - len(extra) :] == tuple(extra)


def test_a_real_shell_reads_hostile_arguments_as_they_are(tmp_path: Path) -> None:
    extra = ("$(touch pwned)", "`touch pwned`", "; touch pwned", "'", '"', "a b", "*", "~", "\\", "日本\n")
    command = build_command(
        catalog.get("bge-m3"), ServeOptions(runtime="vllm", weights="/w/$(touch pwned)", devices=("0",), extra=extra)
    )
    script = command.lines().replace(
        "vllm serve", f"{shlex.quote(sys.executable)} -c 'import sys;print(sys.argv[1:])'", 1
    )
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == repr(list(command.argv[2:]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("model", ["Qwen3-Embedding-8B", "Qwen3-Reranker-8B"])
@pytest.mark.parametrize("options", [{"tensor_parallel_size": 1}, {"devices": ("0",)}])
def test_8b_on_one_device_is_refused_with_the_reason(runtime: str, model: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{model}: it does not fit on 1 device .* known to work are 2, 4, 8"):
        built(model, runtime=runtime, **options)
    assert built(model, runtime=runtime, force=True, **options)


def test_8b_is_spread_over_two_devices_by_default() -> None:
    argv = built("Qwen3-Embedding-8B")
    assert "VACC_VISIBLE_DEVICES=0,1" in argv
    assert argv[argv.index("--tensor-parallel-size") + 1] == "2"


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("Qwen3-Embedding-0.6B", {"tensor_parallel_size": 3}, "cannot be spread over 3; .* 1, 2, 4, 8"),
        ("Qwen3-Embedding-0.6B", {"devices": ("0", "1", "2")}, "cannot be spread over 3"),
        ("Qwen3-Embedding-0.6B", {"tensor_parallel_size": 0, "force": True}, "cannot be spread over 0"),
        (
            "Qwen3-Embedding-0.6B",
            {"tensor_parallel_size": 4, "devices": ("0", "1")},
            "needs 4 devices, --devices names 2",
        ),
        ("Qwen3-Embedding-0.6B", {"devices": ("0", "0")}, "each once"),
        ("Qwen3-Embedding-0.6B", {"devices": ("gpu",)}, "give their numbers"),
        ("Qwen3-Embedding-0.6B", {"devices": ("",)}, "give their numbers"),
        ("Qwen3-Embedding-0.6B", {"dimensions": 2048}, "offers 32 to 1024"),
        ("Qwen3-Embedding-0.6B", {"dimensions": 16}, "offers 32 to 1024"),
        ("bge-m3", {"dimensions": 512}, "bge-m3 offers 1024 only; it was not trained for shorter"),
        ("Qwen3-Reranker-4B", {"dimensions": 512}, "is a cross-encoder, it answers with scores"),
        ("bge-base-en-v1.5", {"max_model_len": 8192}, "takes 1 to 512 tokens"),
        ("bge-m3", {"port": 0}, "between 1 and 65535"),
        ("bge-m3", {"port": 65536}, "between 1 and 65535"),
        ("bge-m3", {"runtime": "podman"}, "not one of vacc-docker, docker, vllm"),
        ("bge-m3", {"image_tag": "a b"}, "is not an image tag"),
        ("bge-m3", {"image_tag": "-v/:/host"}, "is not an image tag"),
        ("bge-m3", {"image": "harbor/x:latest"}, "without a tag"),
        ("bge-m3", {"image": "--privileged"}, "give the repository alone"),
        ("bge-m3", {"container_name": "a b"}, "container name"),
        ("bge-m3", {"shm_size": "lots"}, "write it like 64g"),
        ("bge-m3", {"vllm_version": "new"}, "is not a vLLM version"),
        ("bge-m3", {"served_model_name": "--port"}, "may not begin with '-'"),
        ("bge-m3", {"host": "--port"}, "is not a name or address"),
        ("bge-m3", {"host": "127.0.0.1"}, "inside a container the server has to listen on 0.0.0.0"),
        ("bge-m3", {"weights": "/a:b"}, "no path with a colon"),
        ("bge-m3", {"weights": "/a\nb"}, "control character"),
        ("bge-m3", {"extra": ("--port", "9000")}, "extra argument --port: say it with --port"),
        ("bge-m3", {"extra": ("--served_model_name=x",)}, "say it with --served-model-name"),
        ("bge-m3", {"extra": ("a\0b",)}, "NUL"),
        ("bge-m3", {"runtime": "vllm", "image_tag": "v0.9.2"}, "starts no container: leave out --image-tag"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(model, **{"max_model_len": None, **options})


def test_a_shorter_vector_tells_the_server_that_it_may_be_asked_for() -> None:
    argv = built("Qwen3-Embedding-0.6B", runtime="vllm", dimensions=256)
    assert json.loads(argv[argv.index("--hf-overrides") + 1]) == {"is_matryoshka": True}
    assert "--hf-overrides" not in built("Qwen3-Embedding-0.6B", runtime="vllm", dimensions=1024)
    assert "--hf_overrides" in built("Qwen3-Embedding-0.6B", dimensions=32)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("version", "task"), [("0.9.2", True), ("v0.10.1", True), ("0.11.0", False), ("0.32.0", False)]
)
def test_task_is_said_up_to_0_10_only(runtime: str, version: str, task: bool) -> None:
    for model, value in (("bge-m3", "embed"), ("bge-reranker-base", "score")):
        argv = built(model, runtime=runtime, vllm_version=version)
        assert (argv[argv.index("--task") + 1] == value) if task else ("--task" not in argv)
        assert ("--runner" in argv) == (runtime != "vacc-docker" and not task)


def test_the_version_is_read_from_the_tag_or_asked_for() -> None:
    assert vacc_version("VVI-25.09") == vacc_version("VVI-25.12.SP1") == (0, 9)
    assert vacc_version("VVI-26.02") == vacc_version("VVI-26.10.SP2") == (0, 17)
    assert vacc_version("latest") is None
    assert parse_version("0.32.0+cpu") == (0, 32)
    assert "--task" in built("bge-m3", runtime="docker", image_tag="v0.9.2")
    for runtime in ("docker", "vacc-docker"):
        command = build_command(catalog.get("bge-m3"), ServeOptions(runtime=runtime, image_tag="latest", weights="/w"))
        assert any("does not say which vLLM is inside" in note for note in command.notes)


def test_devices_reach_each_runtime_in_its_own_way() -> None:
    devices = ("2", "5")
    assert "VACC_VISIBLE_DEVICES=2,5" in built("Qwen3-Embedding-4B", devices=devices)
    argv = built("Qwen3-Embedding-4B", runtime="docker", devices=devices)
    assert argv[argv.index("--gpus") + 1] == '"device=2,5"'
    argv = built("Qwen3-Embedding-4B", runtime="docker", devices=("3",))
    assert argv[argv.index("--gpus") + 1] == "device=3"
    command = build_command(catalog.get("Qwen3-Embedding-4B"), ServeOptions(runtime="vllm", devices=devices))
    assert command.env == {"CUDA_VISIBLE_DEVICES": "2,5"}
    assert command.shell().startswith("CUDA_VISIBLE_DEVICES=2,5 vllm serve ")


def test_weights_may_be_the_models_folder_or_the_one_around_it(tmp_path: Path) -> None:
    name = "bge-m3"
    mounted = ["-v", f"{tmp_path}:/weights/"]
    for folder in (tmp_path, tmp_path / name):  # by name, as nothing is there yet
        argv = built(name, weights=str(folder))
        assert argv[argv.index("-v") : argv.index("-v") + 2] == mounted
        assert "/weights/bge-m3" in argv
    (tmp_path / "renamed").mkdir()
    (tmp_path / "renamed" / "config.json").write_text("{}")
    assert "/weights/renamed" in built(name, weights=str(tmp_path / "renamed"))
    nested = tmp_path / name / name  # a folder around that happens to have the model's name
    nested.mkdir(parents=True)
    (nested / "config.json").write_text("{}")
    argv = built(name, weights=str(tmp_path / name))
    assert f"{tmp_path / name}:/weights/" in argv
    assert built(name, runtime="vllm", weights=str(tmp_path / name))[2] == str(nested)


def test_downloaded_weights_beside_the_user_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = build_command(catalog.get("bge-m3"), ServeOptions())
    assert "/path/to/model:/weights/" in command.argv
    assert command.placeholder
    assert any("--weights" in note for note in command.notes)
    (tmp_path / "bge-m3").mkdir()
    (tmp_path / "bge-m3" / "config.json").write_text("{}")
    command = build_command(catalog.get("bge-m3"), ServeOptions())
    assert f"{tmp_path}:/weights/" in command.argv
    assert not command.placeholder


def test_without_weights_vllm_is_given_the_hubs_name() -> None:
    assert built("bge-m3", runtime="vllm")[:3] == ["vllm", "serve", "BAAI/bge-m3"]
    argv = built("bge-m3", runtime="docker")
    assert argv[argv.index("serve") + 1] == "BAAI/bge-m3"
    assert "evalscope-vacc-hub:/hub" in argv


def test_the_url_is_where_this_machine_reaches_the_server() -> None:
    def url(**options: Any) -> str:
        return build_command(catalog.get("bge-m3"), ServeOptions(runtime="vllm", **options)).url

    assert url() == "http://127.0.0.1:8000"
    assert url(host="0.0.0.0", port=9) == "http://127.0.0.1:9"
    assert url(host="10.1.2.3") == "http://10.1.2.3:8000"
    assert url(host="::1") == "http://[::1]:8000"


def read_by_a_shell(text: str) -> list[str]:
    """The words that a real shell makes of a printed command; an assignment before it is left out."""
    show = f"exec {shlex.quote(sys.executable)} -c 'import json,sys;print(json.dumps(sys.argv[1:]))' "
    start = re.match(r"(?:[A-Z_]+=\S+\s+(?:\\\s+)?)*", text).end()
    done = subprocess.run(["sh", "-c", show + text[start:]], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("model", ["Qwen3-Embedding-8B", "Qwen3-Reranker-0.6B"])
def test_the_printed_lines_can_be_pasted(runtime: str, model: str) -> None:
    extra = ("a b", "'", "x\ny", "--dtype", "float16", "\\", "")
    options = ServeOptions(runtime=runtime, weights="/w/a b", devices=("2", "3"), force=True, extra=extra)
    command = build_command(catalog.get(model), options)
    assert read_by_a_shell(command.lines()) == list(command.argv)


def test_serve_prints_an_option_a_line_and_notes_elsewhere(command: Callable[..., Any]) -> None:
    done = command(
        "serve", "qwen/qwen3-reranker-4b", "--weights", "/path/to/model", "--port", "9001", "--", "--dtype", "float16"
    )
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "docker run \\"
    assert "    --port 9001 \\" in lines
    assert f"    {IMAGE}:VVI-26.02 vllm serve /weights/Qwen3-Reranker-4B \\" in lines
    assert lines[-1] == "    --dtype float16"
    assert max(len(line) for line in lines if "hf_overrides" not in line) <= 100
    assert read_by_a_shell(done.stdout)[-2:] == ["--dtype", "float16"]
    assert "There is no" in done.stderr
    assert "The image's tag is VVI-26.02; for newer ones see https://github.com/Vastai/VastModelZOO" in done.stderr
    assert "VVI-26.02" not in command("serve", "bge-m3", "--image-tag", "VVI-26.10").stderr


def devices_of(*arguments: str) -> set[str]:
    told = json.loads(CliRunner().invoke(app, ["serve", *arguments, "--json"]).stdout)
    (said,) = (word for word in told["argv"] if word.startswith("VACC_VISIBLE_DEVICES="))
    return set(said.partition("=")[2].split(","))


def test_no_encoder_and_cross_encoder_share_a_device_by_default() -> None:
    taken = {entry.name: devices_of(entry.name) for entry in catalog.entries()}
    for encoder in (entry for entry in catalog.entries() if not entry.is_cross_encoder):
        for reranker in (entry for entry in catalog.entries() if entry.is_cross_encoder):
            assert taken[encoder.name].isdisjoint(taken[reranker.name]), (encoder.name, reranker.name)
    assert devices_of("bge-m3", "--device", "5") == devices_of("bge-m3", "--devices", "5") == {"5"}


@pytest.mark.parametrize("page", ["accelerator.md", "accelerator.zh.md"])
def test_the_services_of_the_guide_have_devices_of_their_own(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "guide" / page).read_text(encoding="utf-8")
    lines = re.findall(r"^evalscope-vacc serve (.+?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert len(lines) >= 2
    taken = [
        set(arguments[arguments.index("--devices") + 1].split(","))
        if "--devices" in arguments
        else devices_of(*arguments)
        for arguments in map(shlex.split, lines)
    ]
    assert sum(map(len, taken)) == len(set.union(*taken))


def test_serve_prints_json(command: Callable[..., Any]) -> None:
    done = command("serve", "bge-m3", "--runtime", "vllm", "--devices", "0, 1", "--json")
    told = json.loads(done.stdout)
    assert told["env"] == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert shlex.split(told["shell"])[1:] == told["argv"]
    assert (told["url"], told["model"]) == ("http://127.0.0.1:8000", "bge-m3")


def test_serve_refuses_an_unknown_model_and_a_lonely_stop(command: Callable[..., Any]) -> None:
    done = command("serve", "bge-m4")
    assert isinstance(done.exception, ConfigError)
    assert "did you mean 'bge-m3'" in str(done.exception)
    assert isinstance(command("serve", "bge-m3", "--stop-after-check").exception, ConfigError)
