"""The gateway as its users meet it: OpenAI's own client, curl, real processes."""

from __future__ import annotations

import datetime
import ipaddress
import json
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.commands import Command, run
from tests.support.swarms import Served, served, short_home

pytestmark = pytest.mark.processes

CHAT: list[Any] = [{"role": "user", "content": "Tell me about a dog."}]


@pytest.fixture(scope="module")
def node() -> Iterator[Served]:
    """One node with all layers, and HTTP beside it."""
    with short_home() as home, served(home, "0-26", options=("--http", "0")) as nodes:
        yield nodes[0]


@pytest.fixture(scope="module")
def url(node: Served) -> str:
    address: str = node.command.wait_for("listening")["url"]
    return address


def client_of(url: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", max_retries=0, **{"api_key": "any", **options})


def test_openais_client_chats_and_streams(url: str) -> None:
    with client_of(url) as client:
        model = client.models.list().data[0].id
        ask: dict[str, Any] = {"model": model, "messages": CHAT, "temperature": 0, "max_tokens": 12}
        whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
        stream = client.chat.completions.create(
            **ask, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        assert "".join(pieces) == whole.choices[0].message.content
        assert chunks[-1].usage is not None
        assert whole.usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12
        told = whole.choices[0].logprobs
        assert told is not None
        assert told.content is not None
        assert len(told.content) == 12
        vectors = client.embeddings.create(model=model, input=["a dog", "a cat"])
        assert len(vectors.data[0].embedding) == len(vectors.data[1].embedding) > 0
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="gpt-5", prompt="Once")
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.completions.create(model=model, prompt="Once", temperature=-1)


def test_curl_streams_and_its_end_frees_the_chain(node: Served, url: str) -> None:
    body = {"model": "nobody", "prompt": "Once upon a time", "stream": True, "max_tokens": 400}
    command = ["curl", "-sN", f"{url}/v1/completions", "--json", "@-"]
    unknown = subprocess.run(
        command, input=json.dumps(body), capture_output=True, text=True, check=True
    )
    assert json.loads(unknown.stdout)["error"]["code"] == "model_not_found"
    body["model"] = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
    node.command.pass_over()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as curl:
        assert curl.stdin is not None
        assert curl.stdout is not None
        curl.stdin.write(json.dumps(body))
        curl.stdin.close()
        assert curl.stdout.readline().startswith("data: ")
        opened = node.command.wait_for("session_opened")
        curl.kill()
    while node.command.wait_for("session_closed", within_s=5.0)["session"] != opened["session"]:
        pass


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed one for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def test_a_gateway_of_its_own_speaks_tls_to_holders_of_a_key(
    node: Served, url: str, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path)
    made = run("gateway", "keys", "add", "me", "--home", str(tmp_path), "--json")
    secret = json.loads(made.stdout)["key"]
    options = ("--home", str(tmp_path), "--join", node.address, "--port", "0")
    with Command("gateway", *options, "--tls-cert", str(cert), "--tls-key", str(key)) as command:
        own = command.wait_for("listening")
        assert own["url"].startswith("https://127.0.0.1:")
        checks = httpx.Client(verify=ssl.create_default_context(cafile=cert))
        with client_of(own["url"], api_key=secret, http_client=checks) as client:
            done = client.completions.create(model=own["model"], prompt="Once", max_tokens=3)
            assert done.usage is not None
            assert done.usage.completion_tokens <= 3
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="any").models.list()
        assert command.end(signal.SIGTERM) == 0
