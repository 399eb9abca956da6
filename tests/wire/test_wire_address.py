"""Addresses: one server, many spellings, and nothing of a password in what is shown."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.errors import ConfigError, VaccError
from evalscope_vacc.wire.address import (
    endpoint,
    is_local,
    normalize_base,
    public_base,
    query_secrets,
    server_revision,
    user_info,
)

SUFFIXES = [
    "",
    "/",
    "/v1",
    "/v1/",
    "/v1/rerank",
    "/v1/embeddings",
    "/v1/embeddings/",
    "/v1/score",
    "/v2/rerank",
    "/rerank",
    "/score",
    "/embeddings",
    "/v1/models",
    "//v1//embeddings",
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("root", ["http://h:8000", "https://gateway.example/models/a", "http://[2001:db8::1]:8000"])
def test_every_spelling_is_the_same_server(root: str, suffix: str) -> None:
    assert normalize_base(root + suffix) == root
    assert normalize_base(normalize_base(root + suffix)) == root


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("  HTTP://Host.Example:80/V1 ", "http://host.example"),
        ("https://h:443", "https://h"),
        ("http://h:443", "http://h:443"),
        ("http://[2001:DB8:0:0:0:0:0:1]", "http://[2001:db8::1]"),
        ("http://h./v1", "http://h"),
        ("http://h/v1beta", "http://h/v1beta"),
        ("http://gw/v1/tenant/v1", "http://gw/v1/tenant"),
        ("http://gw/Path/v1", "http://gw/Path"),
        ("http://bücher.example/v1", "http://xn--bcher-kva.example"),
    ],
)
def test_odd_spellings(given: str, expected: str) -> None:
    assert normalize_base(given) == expected


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "   ",
        "h:8000",
        "localhost",
        "ftp://h",
        "http://",
        "http:///v1",
        "http://h:port",
        "http://h:99999",
        "http://h:0",
        "http://[::1",
        "http://[::zz]",
        "http://a b",
        "http://a\tb",
        "http://h\\x",
        "http://h..x",
        "http://-h",
        "http://h#x",
        "http://h?key=1#x",
        "file:///etc/passwd",
    ],
)
def test_nonsense_is_refused(nonsense: str) -> None:
    with pytest.raises(ConfigError):
        normalize_base(nonsense)


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hidden@h:99999",
        "http://me:hidden@h x",
        "me:hidden@h:8000",
        "http://me:hi@dden@h..x",
        "http://h?hidden#x",
    ],
)
def test_an_error_does_not_show_the_password(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        normalize_base(address)
    assert "hidden" not in str(caught.value)
    assert "dden" not in str(caught.value)


def test_user_information_is_kept_for_the_request_and_left_out_of_the_rest() -> None:
    base = normalize_base("https://me:p%40ss@h/x/v1")
    assert user_info(base) == ("me", "p@ss")
    assert public_base(base) == "https://h/x"
    assert user_info("http://h") is None
    assert server_revision([base]) == server_revision(["https://h/x"])


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://h:8000", "http://h:8000/v1/embeddings"),
        ("http://h:8000/v1", "http://h:8000/v1/embeddings"),
        ("https://h/compatible-mode/v1", "https://h/compatible-mode/v1/embeddings"),
        ("https://h/api/v3", "https://h/api/v3/embeddings"),
        ("https://h/api/v3/embeddings", "https://h/api/v3/embeddings"),
        ("https://h/api/paas/v4/", "https://h/api/paas/v4/embeddings"),
        ("https://h/v2", "https://h/v2/embeddings"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai/embeddings"),
        ("https://h/v1beta/openai/embeddings", "https://h/v1beta/openai/embeddings"),
        ("https://h/v1/openai", "https://h/v1/openai/embeddings"),
        ("https://h/v10", "https://h/v10/embeddings"),
        ("https://h/v1.5", "https://h/v1.5/v1/embeddings"),
        (
            "https://h/openai/deployments/small/embeddings?api-version=2024-10-21",
            "https://h/openai/deployments/small/embeddings?api-version=2024-10-21",
        ),
        ("https://me:secret@h/v1?a=%20b", "https://h/v1/embeddings?a=%20b"),
    ],
)
def test_endpoints_follow_an_address_as_openai_s_client_puts_them(given: str, url: str) -> None:
    assert endpoint(normalize_base(given), "/v1/embeddings") == url
    assert endpoint(normalize_base(normalize_base(given)), "/v1/embeddings") == url


def test_other_endpoints_follow_too() -> None:
    assert endpoint(normalize_base("http://h/v1"), "/health") == "http://h/health"
    assert endpoint(normalize_base("http://h/api/v3?x=1"), "/v1/models") == "http://h/api/v3/models?x=1"
    assert endpoint(normalize_base("http://h/compatible-mode/v1"), "//api/v1/x") == "http://h/api/v1/x"


def test_a_query_is_sent_and_neither_shown_nor_part_of_a_result_s_name() -> None:
    base = normalize_base("https://h/v1?api-version=1&api-key=s3cr%20et")
    assert public_base(base) == "https://h"
    assert set(query_secrets(base)) == {"s3cr%20et", "s3cr et"}
    assert server_revision([base]) == server_revision(["https://h"])


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_configuration_error(text: str) -> None:
    for candidate in (text, "http://" + text):
        try:
            once = normalize_base(candidate)
        except VaccError:
            continue
        assert normalize_base(once) == once
        assert public_base(once).startswith(("http://", "https://"))
        assert isinstance(is_local(once), bool)


def test_the_revision_is_the_documented_hash() -> None:
    expected = hashlib.sha256(b"http://a:1\nhttp://b:2").hexdigest()[:8]
    assert server_revision(["http://b:2/v1/", "http://a:1"]) == f"served-{expected}"
    assert server_revision(["http://a:1", "http://b:2", "http://b:2/v1"]) == f"served-{expected}"
    assert server_revision(["http://a:1"]) != f"served-{expected}"
    with pytest.raises(ConfigError):
        server_revision([])


@pytest.mark.parametrize(
    ("base", "local"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://localhost", True),
        ("http://[::1]:1", True),
        ("http://10.1.2.3", True),
        ("http://172.16.0.1", True),
        ("http://172.32.0.1", False),
        ("http://192.168.1.1", True),
        ("http://169.254.1.1", True),
        ("http://[fe80::1]", True),
        ("http://[fd00::1]", True),
        ("http://[2001:4860:4860::8888]", False),
        ("http://8.8.8.8", False),
        ("http://gpu-box:8000", True),
        ("http://host.docker.internal", True),
        ("http://nas.local", True),
        ("https://api.openai.com", False),
        ("https://notlocal", True),
        ("https://my.localhost.example", False),
    ],
)
def test_private_addresses_are_told_from_public_ones(base: str, local: bool) -> None:
    assert is_local(base) is local
