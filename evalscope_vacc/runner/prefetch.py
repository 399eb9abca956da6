"""``prefetch``: what it is to fetch, and what a person sees of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evalscope_vacc.catalog.presets import families, family_of
from evalscope_vacc.config import MODEL_TYPE, configure
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts.bundle import Manifest
from evalscope_vacc.hosts.prefetch import DICTIONARY, Fetched, Wanted, folder_of
from evalscope_vacc.hosts.prefetch import prefetch as prefetch_data
from evalscope_vacc.redact import clean
from evalscope_vacc.runner.choose import tasks_of
from evalscope_vacc.runner.options import check_preset
from evalscope_vacc.runner.output import captured
from evalscope_vacc.task_file import read_rageval
from evalscope_vacc.view.words import Words, count

_NEEDS_DICTIONARY = "qwen-official"
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(?<!\.json)")


def wanted(config: Path | None, tasks: Sequence[str], benchmarks: Sequence[str], preset: str | None) -> Wanted:
    """Returns what is to be fetched; tasks, benchmarks and a preset replace those of the file.

    Raises:
        ConfigError: Nothing is named, or the file or the preset cannot be used.
    """
    inner = read_rageval(config) if config is not None else {}
    listed = inner.get("models") or inner.get("model") or ()
    entries = [one for one in listed if isinstance(one, Mapping) and one.get("model_type") == MODEL_TYPE]
    evaluation = dict(inner.get("eval") or {})
    if tasks or benchmarks or preset:
        for name in ("task_names", "tasks", "task_types", "benchmarks"):
            evaluation.pop(name, None)
        of_preset = _of_preset(preset, [str(one.get("model_name")) for one in entries]) if preset else ([], [])
        evaluation["task_names"] = list(dict.fromkeys([*tasks, *of_preset[0]]))
        evaluation["benchmarks"] = list(dict.fromkeys([*benchmarks, *of_preset[1]]))
    elif config is None:
        raise ConfigError("prefetch takes a configuration file, --tasks A,B, --benchmark NAME or --preset NAME")
    return Wanted(evaluation, *_of_models(entries))


def _of_preset(preset: str, models: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tasks and benchmarks that a preset has for these models, or for any encoder where none is known."""
    check_preset(preset)
    known = [family for family in map(family_of, models) if family is not None]
    known = known or [family for family in families() if not family.first_stage]
    found = [tasks_of(family, preset) for family in known]
    return [task for names, _ in found for task in names], [name for _, names in found for name in names]


def _of_models(entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], bool]:
    """The tokenizers on a hub that models name, and whether one of them needs the instruction dictionary."""
    # where and by which key they are served, the other machine knows
    models = [configure({**one, "api_base": "http://127.0.0.1", "api_key": "EMPTY", "headers": {}}) for one in entries]
    names = dict.fromkeys(model.tokenizer for model in models if model.tokenizer)
    on_hub = tuple(name for name in names if _HUB_NAME.fullmatch(name) and not Path(name).exists())
    dictionary = [model for model in models if model.instruction_profile == _NEEDS_DICTIONARY]
    return on_hub, any(model.instruction_dict_path is None for model in dictionary)


def prefetch(asked: Wanted, to: Path | None, words: Words, *, verbose: bool = False) -> tuple[Manifest, list[Fetched]]:
    """Fetches, and says on the error output how far it is and how large.

    Raises:
        VaccError: As :func:`evalscope_vacc.hosts.prefetch.prefetch`.
    """
    from rich.console import Console

    folder = None if to is None else folder_of(to)
    with captured(shown=verbose) as output:
        console = Console(file=output.terminal, highlight=False)
        line = ""

        def told(position: int, number: int, what: str | Fetched) -> None:
            nonlocal line
            name = what if isinstance(what, str) else what.name
            line = f"[{position + 1}/{number}] {words('prefetch_dictionary') if name == DICTIONARY else name}"
            if isinstance(what, Fetched):
                style = "" if not what.why else "red" if what.needed else "yellow"
                console.print(f"{line}  {_ended(what, words)}", style=style, markup=False, soft_wrap=True)

        with _moving(console, lambda: line + (f"  {_size(_bytes(folder), words)}" if folder else "")):
            return prefetch_data(asked, to, told)


def _ended(fetched: Fetched, words: Words) -> str:
    if fetched.why and not fetched.needed:
        return words("prefetch_no_dictionary")
    if fetched.why:
        return f"{words('v_failed')}{words('colon')}{fetched.why}"
    if fetched.rows is None:
        return words("prefetch_was_there")
    rows = [words("prefetch_rows", rows=count(fetched.rows))] if fetched.rows else []
    return "  ".join([*rows, words.duration(fetched.seconds)])


@contextmanager
def _moving(console: Any, text: Callable[[], str]) -> Iterator[None]:
    """On a terminal a line that moves."""
    if not console.is_terminal:
        yield
        return
    from rich.live import Live
    from rich.text import Text

    with Live(
        console=console, get_renderable=lambda: Text(text(), no_wrap=True), transient=True, refresh_per_second=2,
        redirect_stdout=False, redirect_stderr=False,
    ):  # fmt: skip
        yield


def _bytes(folder: Path) -> int:
    with suppress(OSError):  # what is being fetched is renamed meanwhile
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return 0


def _size(number: int, words: Words) -> str:
    """Writes a number of bytes."""
    return words("prefetch_size", megabytes=f"{number / 1e6:,.1f}")


def fetched(to: Path | None, manifest: Manifest, wrong: Mapping[str, str], words: Words) -> list[str]:
    """Says what is there now, and what is to be done with it."""
    said = [words("prefetch_incomplete", count=len(wrong), names=words.some(wrong))] if wrong else []
    if to is None:
        return [words("prefetch_cached", tasks=len(manifest.tasks)), *said]
    return [words("prefetch_done", place=to, **_figures(manifest, words)), *said, words("prefetch_next", place=to)]


def verified(manifest: Manifest, wrong: Mapping[str, str], words: Words) -> list[str]:
    """Names every file that is not as it was fetched."""
    named = [words("prefetch_wrong", name=clean(name, limit=300), how=words(how)) for name, how in wrong.items()]
    return named or [words("prefetch_whole", **_figures(manifest, words))]


def _figures(manifest: Manifest, words: Words) -> dict[str, Any]:
    return {"tasks": len(manifest.tasks), "files": len(manifest.files), "size": _size(manifest.bytes, words)}
