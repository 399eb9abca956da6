"""The rate that an estimate and a budget are made of."""

from __future__ import annotations

import pytest
from sound_server import SoundServer

from evalscope_vacc.checks.rate import measure
from evalscope_vacc.config import configure


def config(server: SoundServer, **keys: object):
    return configure({"model_name": server.name, "api_base": server.base, "max_concurrency": 2, **keys})


@pytest.mark.parametrize("kind", ["encoder", "cross-encoder"])
def test_a_server_that_needs_time_for_each_request_answers_as_many_as_that_allows(kind: str) -> None:
    with SoundServer(kind=kind, delay_s=0.2) as server:
        rate = measure(config(server, is_cross_encoder=kind == "cross-encoder", encode_kwargs={"batch_size": 8}), 0.5)
    assert rate is not None
    # two requests of eight texts at a time, a fifth of a second each
    assert 10 < rate.texts <= 80
    assert rate.tokens > rate.texts


def test_the_rate_is_that_of_all_servers() -> None:
    with SoundServer(delay_s=0.2) as one, SoundServer(delay_s=0.2) as other:
        alone = measure(config(one), 0.4)
        both = measure(config(one, api_base=[one.base, other.base]), 0.4)
    assert alone is not None
    assert both is not None
    assert both.texts > 1.2 * alone.texts


def test_a_server_that_answers_nothing_has_no_rate() -> None:
    with SoundServer() as server:
        told = config(server)
    assert measure(told, 0.1) is None
