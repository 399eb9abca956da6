"""``evalscope-vacc estimate``: how many texts and tokens, and how long, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import typer

from evalscope_vacc.cli.options import AsJson, Lang


def estimate(
    config: Optional[Path] = typer.Argument(  # noqa: UP045 - an older typer knows no `X | None`
        None, metavar="[CONFIG.yaml]", help="EvalScope's RAGEval file (tool, models, eval)."
    ),
    benchmark: Optional[list[str]] = typer.Option(  # noqa: UP045
        None, "--benchmark", metavar="NAME", help="MTEB's benchmark instead of the file's tasks; repeatable."
    ),
    model: Optional[str] = typer.Option(  # noqa: UP045
        None, "--model", metavar="NAME", help="The model whose published scores to expect, if no file is given."
    ),
    tokens_per_second: Optional[float] = typer.Option(  # noqa: UP045
        None, "--tokens-per-second", help="Measured rate of the server; `evalscope-vacc check` measures it."
    ),
    texts_per_second: Optional[float] = typer.Option(  # noqa: UP045
        None,
        "--texts-per-second",
        help="Measured rate of the encoder. Beside --tokens-per-second, the slower one counts.",
    ),
    pairs_per_second: Optional[float] = typer.Option(  # noqa: UP045
        None, "--pairs-per-second", help="Measured rate of the cross-encoder. Default: that of the encoder."
    ),
    skip_unknown: bool = typer.Option(False, "--skip-unknown", help="Leave out tasks of unknown size."),
    as_json: AsJson = False,
    lang: Lang = "en",
) -> None:
    """Estimate texts, tokens and time of a configuration or a benchmark, and list the scores to expect.

    A task of unknown size is an error, because a sum without it would look right.
    """
    from evalscope_vacc.errors import ConfigError
    from evalscope_vacc.results.estimate import estimate as estimate_of
    from evalscope_vacc.task_file import read_config
    from evalscope_vacc.view import listings
    from evalscope_vacc.view.document import show, write_out
    from evalscope_vacc.view.machine import to_json
    from evalscope_vacc.view.words import Words

    words = Words(lang)
    asked: Path | dict[str, Any] | None = config
    if benchmark:
        without_file: dict[str, Any] = {"models": [{"model_name": model or "-"}], "eval": {}}
        content = read_config(config) if config else without_file
        inner: dict[str, Any] = content.get("eval_config", content)
        others = {"task_names", "tasks", "task_types", "benchmarks"}
        kept = {key: value for key, value in (inner.get("eval") or {}).items() if key not in others}
        asked = {**inner, "eval": {**kept, "benchmarks": benchmark}}
    if asked is None:
        raise ConfigError("estimate takes a configuration file, or --benchmark NAME")
    found = estimate_of(
        asked, texts_per_second=texts_per_second, pairs_per_second=pairs_per_second,
        tokens_per_second=tokens_per_second, skip_unknown=skip_unknown,
    )  # fmt: skip
    if as_json:
        write_out(to_json(listings.estimate_mapping(found, words)))
    else:
        show(listings.estimate(found, words))
