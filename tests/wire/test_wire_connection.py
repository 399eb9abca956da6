"""Certificates, proxies, headers, keys: what a connection sends, trusts, and never shows."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from draining import drain
from loopback_server import Close, Got, LoopbackServer, Reply

from evalscope_vacc.errors import AuthenticationError, ConfigError, ServerError, ServerUnreachableError
from evalscope_vacc.wire.engine import Connection, Engine, Request
from evalscope_vacc.wire.messages import encode_json

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-very-secret-0123456789"
Serve = Callable[..., LoopbackServer]
Connect = Callable[..., Engine]


def hello(got: Got, sock: Any) -> Reply:
    return Reply.of({"hello": got.path})


# -- headers ----------------------------------------------------------------------------------------------------------


def test_the_key_and_the_headers_are_sent(serve: Serve, connect: Connect) -> None:
    server = serve(hello)
    connect(server, api_key=KEY, headers={"X-Team": "search"}).call("POST", "/v1/score", {"a": "ü"})
    got = server.requests[0]
    assert got.headers["authorization"] == f"Bearer {KEY}"
    assert got.headers["x-team"] == "search"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["host"] == f"127.0.0.1:{server.port}"
    assert got.body == '{"a":"ü"}'.encode()


def test_a_user_in_the_address_is_sent_as_basic_authentication(serve: Serve, connect: Connect) -> None:
    server = serve(hello)
    base = server.base.replace("http://", "http://me:p%40ss@") + "/proxy/path/v1"
    answer = connect(base, api_key="EMPTY").call("GET", "/v1/models")
    assert server.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert server.requests[0].path == "/proxy/path/v1/models"
    assert answer.server == server.base + "/proxy/path"


def test_an_own_authorization_header_wins(serve: Serve, connect: Connect) -> None:
    server = serve(hello)
    connect(server, api_key=KEY, headers={"authorization": "Token x"}).call("GET", "/v1/models")
    assert server.requests[0].headers["authorization"] == "Token x"


def test_no_key_sends_no_authorization(serve: Serve, connect: Connect) -> None:
    server = serve(hello)
    connect(server).call("GET", "/v1/models")
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    "options",
    [
        {"bases": ()},
        {"bases": ("http://h", "http://me:pw@h")},
        {"api_key": f"{KEY}\nX: y"},
        {"api_key": f"{KEY}中"},
        {"api_key": f"{KEY}ü"},
        {"headers": {"X-Key": f"{KEY}\r\nEvil: yes"}},
        {"headers": {f"X Key {KEY[:0]}": "v"}},
        {"headers": {"X": 7}},
        {"bases": ("http://me:pw@h",), "api_key": KEY},
        {"verify": "/no/such/file.pem"},
    ],
)
def test_a_connection_that_cannot_be_is_refused_without_showing_secrets(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Connection(**{"bases": ("http://h",), **options})
    assert KEY not in str(caught.value)
    assert "pw" not in str(caught.value)


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["echo refusal", "echo 200", "redirect", "closed", "refused"])
def test_secrets_are_in_no_error_log_or_representation(
    kind: str, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that repeats everything it was sent, as some proxies do."""
    header, password = "hdr-secret-value", "pass-word-77"

    def answer(got: Got, sock: Any) -> Reply:
        told = f"you sent {got.headers} to {got.path}"
        if kind == "closed":
            raise Close
        if kind == "redirect":
            return Reply(302, b"", "", {"Location": f"http://x/{got.headers['authorization'].split()[1]}?key={KEY}"})
        return Reply.of({"error": {"message": told, "code": 400}}, 200 if kind == "echo 200" else 400)

    server = serve(answer)
    if kind == "refused":
        server.stop()
    with_user = server.base.replace("http://", f"http://me:{password}@")
    shown: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for options in (
            {"server": server.base, "api_key": KEY, "headers": {"X-Auth": header}},
            {"server": with_user, "headers": {"X-Auth": header}},
        ):
            base = options.pop("server")
            engine = connect(base, retries=1, **options)
            shown += [repr(engine), str(engine.servers), str(engine.usage)]

            def handle(request: Request, answer: Any) -> None:
                from evalscope_vacc.wire.dialects import get_dialect

                get_dialect("vllm").read_embeddings(answer.body, 1)

            try:
                drain(engine, [Request("/v1/embeddings", {}, 1, describe="a text")], handle)
            except ServerError as error:
                shown += [str(error), repr(error), error.server, error.server_message, *map(str, error.args)]
                shown.append("".join(traceback.format_exception(error)))
            else:
                pytest.fail("this server refuses everything")
            basic = base64.b64encode(f"me:{password}".encode()).decode()
    everything = "\n".join([*shown, caplog.text])
    for secret in (KEY, header, password, basic):
        assert secret not in everything
    assert server.base in everything


# -- certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private authority, and a certificate of 127.0.0.1 by it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the command openssl to make certificates")
    folder = tmp_path_factory.mktemp("authority")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "rsa:2048", "-nodes"]
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    run("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext", "-days", "2"]
    run("x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem")
    return folder


@pytest.fixture
def tls(authority: Path, serve: Serve) -> LoopbackServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    return serve(hello, tls=context)


def test_an_unknown_authority_is_refused_at_once(tls: LoopbackServer, connect: Connect) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnreachableError, match=r"certificate is not trusted .*Set verify"):
        connect(tls, retries=5, backoff_s=5, wait_for_server_s=60).call("GET", "/v1/models")
    assert time.monotonic() - start < 5
    assert not tls.requests


def test_a_certificate_of_another_name_is_refused(tls: LoopbackServer, authority: Path, connect: Connect) -> None:
    elsewhere = tls.base.replace("127.0.0.1", "localhost")
    with pytest.raises(ServerUnreachableError, match="certificate is not trusted"):
        connect(elsewhere, verify=str(authority / "ca.pem")).call("GET", "/v1/models")
    assert not tls.requests


def test_a_private_authority_is_trusted_when_named(tls: LoopbackServer, authority: Path, connect: Connect) -> None:
    assert connect(tls, verify=str(authority / "ca.pem")).call("GET", "/v1/models").status == 200
    subprocess.run(["openssl", "rehash", str(authority)], check=True, capture_output=True)
    assert connect(tls, verify=str(authority)).call("GET", "/v1/models").status == 200


def test_checking_can_be_switched_off_and_is_said(
    tls: LoopbackServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    assert connect(tls, verify=False).call("GET", "/v1/models").status == 200
    assert "its certificate is not checked" in caplog.text


def test_a_file_without_certificates_is_a_configuration_error(tmp_path: Path, connect: Connect) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="no certificates"):
        connect("https://127.0.0.1:1", verify=str(tmp_path / "empty.pem"))


def test_https_to_a_server_that_speaks_http_is_explained(serve: Serve, connect: Connect) -> None:
    def plain(got: Got, sock: Any) -> None:
        raise Close

    server = serve(plain)
    # a TLS greeting is no request line: this server answers it in plain HTTP, as uvicorn does
    server._read = lambda stream: (stream.read1(), None)[1]  # type: ignore[method-assign]
    with pytest.raises(ServerUnreachableError):
        connect(server.base.replace("http:", "https:"), retries=0).call("GET", "/v1/models")


# -- proxies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> LoopbackServer:
    """An HTTP proxy that answers by itself, and an environment that names it, with a password."""

    def answer(got: Got, sock: Any) -> Reply:
        return Reply.of({"through": got.path, "key": got.headers.get("proxy-authorization", "")})

    server = serve(answer)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", server.base.replace("http://", "http://u:proxy-pw@"))
    return server


def test_a_private_server_is_reached_directly(proxy: LoopbackServer, serve: Serve, connect: Connect) -> None:
    server = serve(hello)
    connect(server).call("GET", "/v1/models")
    assert len(server.requests) == 1
    assert not proxy.requests


def test_a_public_server_is_reached_through_the_proxy(proxy: LoopbackServer, connect: Connect) -> None:
    engine = connect("http://public.example/prefix")
    answer = engine.call("GET", "/v1/models")
    assert b"http://public.example/prefix/v1/models" in answer.body
    expected = "Basic " + base64.b64encode(b"u:proxy-pw").decode()
    assert proxy.requests[0].headers["proxy-authorization"] == expected
    assert proxy.requests[0].headers["host"] == "public.example"
    assert "proxy-pw" in engine.secrets


def test_the_environment_may_be_overruled(
    proxy: LoopbackServer, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(hello)
    connect(server, trust_env=True).call("GET", "/v1/models")
    assert len(proxy.requests) == 1
    monkeypatch.setenv("no_proxy", "127.0.0.0/8")
    connect(server, trust_env=True).call("GET", "/v1/models")
    assert len(server.requests) == 1
    with pytest.raises(ServerUnreachableError):
        connect("http://public.example.invalid", trust_env=False, retries=0).call("GET", "/v1/models")
    assert len(proxy.requests) == 1


def test_a_proxy_of_another_kind_is_a_configuration_error(
    proxy: LoopbackServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "socks5://u:proxy-pw@127.0.0.1:1")
    with pytest.raises(ConfigError, match="only http and https proxies") as caught:
        connect("http://public.example")
    assert "proxy-pw" not in str(caught.value)


# -- bodies -----------------------------------------------------------------------------------------------------------


def test_a_compressed_answer_is_read(serve: Serve, connect: Connect) -> None:
    import gzip

    server = serve(lambda got, sock: Reply(200, gzip.compress(b'{"a":1}'), headers={"Content-Encoding": "gzip"}))
    assert connect(server).call("GET", "/v1/models").body == b'{"a":1}'
    broken = serve(lambda got, sock: Reply(200, b"no gzip", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(ServerUnreachableError):
        connect(broken, retries=1).call("GET", "/v1/models")


def test_an_answer_of_any_size_is_bounded(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr("evalscope_vacc.wire.server.MAX_ANSWER_BYTES", 1000)
    bomb = gzip.compress(b"0" * 10_000_000)
    server = serve(lambda got, sock: Reply(200, bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(ServerError, match="more than 1000 bytes"):
        connect(server).call("GET", "/v1/models")
    large = serve(lambda got, sock: Reply(200, b"0" * 2000))
    with pytest.raises(ServerError, match="more than 1000 bytes"):
        connect(large).call("GET", "/v1/models")


def test_a_body_is_compact_json_in_utf8() -> None:
    assert encode_json({"a": ["ü", 1]}) == '{"a":["ü",1]}'.encode()
    assert encode_json({"a": "\udcff"}) == b'{"a":"\\udcff"}'


def test_headers_of_any_usual_length_are_read(serve: Serve, connect: Connect) -> None:
    server = serve(lambda got, sock: Reply(200, b"{}", headers={"Set-Cookie": "a=" + "b" * 20_000}))
    assert connect(server).call("GET", "/v1/models").body == b"{}"


@pytest.mark.parametrize(
    ("written", "sent"),
    [("/a%2Fb", "/a%2Fb"), ("/ü", "/%C3%BC"), ("/a{b}", "/a%7Bb%7D"), ("/a%", "/a%25"), ("/a;b+c", "/a;b+c")],
)
def test_a_path_is_sent_as_it_is_meant(written: str, sent: str, serve: Serve, connect: Connect) -> None:
    server = serve(hello)
    connect(server.base + written).call("GET", "/v1/models")
    assert server.requests[0].path == f"{sent}/v1/models"


def test_an_error_of_the_connection_is_one_line(serve: Serve, connect: Connect) -> None:
    def answer(got: Got, sock: Any) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
        raise Close

    with pytest.raises(ServerUnreachableError) as caught:
        connect(serve(answer), retries=0).call("GET", "/v1/models")
    assert "\n" not in str(caught.value)


# -- the end of a process ---------------------------------------------------------------------------------------------

SCRIPT = """
import sys, threading, time
from evalscope_vacc.errors import RunInterrupted
from evalscope_vacc.wire.engine import Connection, Request, Engine

engine = Engine(Connection((sys.argv[1],), max_concurrency=4, api_key="sk-very-secret-0123456789"))
try:
    for _ in engine.stream((Request("/v1/embeddings", {"n": i}, 1) for i in range(10**9)), lambda request, answer: None):
        pass
except RunInterrupted as error:
    left = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    print("stopped:", error, "threads:", left, flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("busy", ["waiting for answers", "under full load"])
def test_ctrl_c_stops_a_process_within_two_seconds(busy: str, serve: Serve) -> None:
    def answer(got: Got, sock: Any) -> Reply | None:
        if busy == "waiting for answers":
            server.stopped.wait(30)
            raise Close
        return Reply(200, b"{}")

    server = serve(answer)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EVALSCOPE_VACC_DISABLE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.base],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until = time.monotonic() + 30
        while len(server.requests) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        # two seconds are promised; the rest is for the end of a Python process on a busy machine
        assert time.monotonic() - start < 6
    finally:
        process.kill()
    assert process.returncode == 130, out
    assert "threads: []" in out
    assert "Run the same command again" in out
    assert KEY not in out
    until = time.monotonic() + 3
    while server.open_connections and time.monotonic() < until and busy == "under full load":
        time.sleep(0.02)
    if busy == "under full load":
        assert server.open_connections == 0


def test_a_refused_key_is_no_reason_to_print_it(serve: Serve, connect: Connect) -> None:
    server = serve(lambda got, sock: Reply.of({"error": f"key {KEY} is not known"}, 401))
    with pytest.raises(AuthenticationError, match=r"key \*\*\* is not known"):
        connect(server, api_key=KEY).call("GET", "/v1/models")


def test_an_engine_shows_nothing_of_its_headers() -> None:
    with Engine(Connection(("http://me:hidden@h",), headers={"X-Api-Key": KEY})) as engine:
        assert "hidden" not in repr(engine)
        assert KEY not in repr(engine)
        assert {"hidden", KEY} <= set(engine.secrets)
