"""TLS to the providers, verified; and the shipped files themselves, as they are."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import socket
import ssl
import subprocess
import threading
from typing import Any, Iterator, Optional

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway import ROOT, WASM, envoy_binary, free_port
from support import CHAT, Json, Upstream, World, ask, chat, fake, wait_for
from traffic import ask_in_turn, assert_all_served

NAMES = {name: f"api.{name}.test" for name in ("openai", "deepseek")}
ONE_HOUR = datetime.timedelta(hours=1)


class Authority:
    """A certificate authority that lives for one test."""

    def __init__(self, folder: pathlib.Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._certificate(self._name, self._key, ONE_HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = str(self._write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM)))

    def issue(self, host: str, valid: datetime.timedelta = ONE_HOUR) -> tuple[str, str]:
        """The files of a certificate for `host` and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = (
            self._certificate(subject, key, valid)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = self._write(f"{host}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return str(public), str(self._write(f"{host}.key", secret))

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, valid: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 24 * ONE_HOUR)
            .not_valid_after(now + valid)
        )

    def _write(self, name: str, content: bytes) -> pathlib.Path:
        self._folder.mkdir(exist_ok=True)
        path = self._folder / name
        path.write_bytes(content)
        return path


@contextlib.contextmanager
def tls_world(authority: Authority, http2: bool, first: Optional[tuple[str, str]] = None) -> Iterator[World]:
    """Two providers behind TLS; the first one with the certificate `first`, if it is not to be a good one."""
    files = {name: authority.issue(host) for name, host in NAMES.items()}
    if first is not None:
        files["openai"] = first
    with contextlib.ExitStack() as stack:
        fakes = {
            name: stack.enter_context(fake.start(name, http2=http2, tls=pair, dialect="deepseek" if name == "deepseek" else "openai"))
            for name, pair in files.items()
        }
        world = World(fakes, http2=http2)
        stack.callback(world.close)
        yield world


def upstream(world: World, authority: Authority, name: str, **more: Any) -> Upstream:
    return Upstream(world.fakes[name].port, http2=world.http2, ca=authority.path, sni=NAMES[name], **more)


def upstreams(world: World, authority: Authority) -> dict[str, Upstream]:
    return {name: upstream(world, authority, name) for name in NAMES}


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> Authority:
    return Authority(tmp_path)


over_both = pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])


@over_both
def test_a_verified_provider_serves_and_the_next_one_does_when_it_fails(authority: Authority, http2: bool) -> None:
    with tls_world(authority, http2) as world:
        gateway = world.gateway(upstreams=upstreams(world, authority))
        healthy = ask_in_turn(gateway, 2) + ask_in_turn(gateway, 2, stream=True)
        world.fakes["openai"].script(default={"do": "status", "status": 503})
        failed_over = ask_in_turn(gateway, 2) + ask_in_turn(gateway, 2, stream=True)

        assert_all_served(healthy + failed_over)
        assert all(answer.attempts == ["openai:answered"] for answer in healthy)
        assert all(answer.attempts == ["openai:overloaded", "deepseek:answered"] for answer in failed_over)
        assert world.counts() == {"openai": 8, "deepseek": 4}
        versions = {entry["http_version"] for entry in world.seen("openai")}
        assert versions == ({"HTTP/2"} if http2 else {"HTTP/1.1"})


@over_both
@pytest.mark.parametrize("fault", ["name", "authority", "expired"])
def test_a_provider_that_cannot_be_verified_gets_nothing_and_the_next_one_serves(
    authority: Authority, tmp_path: pathlib.Path, http2: bool, fault: str
) -> None:
    bad = {
        "name": lambda: authority.issue("api.other.test"),
        "authority": lambda: Authority(tmp_path / "other", "other").issue(NAMES["openai"]),
        "expired": lambda: authority.issue(NAMES["openai"] + ".expired", valid=-ONE_HOUR),
    }[fault]()
    with tls_world(authority, http2, first=bad) as world:
        gateway = world.gateway(upstreams=upstreams(world, authority))
        answers = ask_in_turn(gateway, 2) + ask_in_turn(gateway, 2, stream=True)
        assert_all_served(answers)
        assert all(answer.attempts == ["openai:unreachable", "deepseek:answered"] for answer in answers)
        assert world.counts() == {"openai": 0, "deepseek": 4}
        # Verification is what failed, and not the way to the provider.
        counter = "fail_verify_san" if fault == "name" else "fail_verify_error"
        assert gateway.stat(f"cluster.openai.*ssl.{counter}") > 0


class Handshakes:
    """A server that notes the name that each client asks for in its TLS handshake (SNI), and serves nothing."""

    def __init__(self, certificate: tuple[str, str]) -> None:
        self.names: list[Optional[str]] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        self._context.sni_callback = lambda _connection, name, _context: self.names.append(name)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        # Ends when the socket is shut.
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True):
                    pass

    def __enter__(self) -> "Handshakes":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_the_provider_is_asked_for_by_its_name(authority: Authority) -> None:
    with tls_world(authority, http2=False) as world, Handshakes(authority.issue("sni.test")) as server:
        named = Upstream(server.port, ca=authority.path, sni="sni.test")
        gateway = world.gateway(upstreams={"openai": named, "deepseek": upstream(world, authority, "deepseek")})
        answer = ask(gateway)
        assert_all_served([answer])
        assert answer.provider == "deepseek"
        assert server.names and set(server.names) == {"sni.test"}


# The shipped files

KEYS = ("OPENAI_API_KEY", "DEEPSEEK_API_KEY", "SHAREAI_API_KEY")
CHECK = ROOT / ".venv" / "bin" / "check-jsonschema"


def copy_of_shipped(folder: pathlib.Path, **replaced: str) -> pathlib.Path:
    """envoy/*.yaml with other paths, and whatever else is given; returns the bootstrap."""
    for source in (ROOT / "envoy").glob("*.yaml"):
        text = source.read_text().replace("/etc/envoy/", f"{folder}/").replace("/etc/shunt/shunt.wasm", str(WASM))
        for old, new in replaced.items():
            text = text.replace(old, new)
        (folder / source.name).write_text(text)
    return folder / "envoy.yaml"


def validate(bootstrap: pathlib.Path, keys: Json) -> "subprocess.CompletedProcess[str]":
    command = [envoy_binary(), "--mode", "validate", "-c", str(bootstrap), "--use-dynamic-base-id"]
    return subprocess.run(command, env={"PATH": os.environ["PATH"], **keys}, capture_output=True, text=True, timeout=60)


def test_the_shipped_files_are_valid(tmp_path: pathlib.Path) -> None:
    bootstrap = copy_of_shipped(tmp_path)
    keys = dict.fromkeys(KEYS, "sk-test")
    # `validate` does not read what comes by LDS and CDS, so once more with all of it in the bootstrap.
    whole = yaml.safe_load(bootstrap.read_text())
    del whole["dynamic_resources"]
    whole["static_resources"] = {
        kind: yaml.safe_load((tmp_path / f"{kind}.yaml").read_text())["resources"] for kind in ("listeners", "clusters")
    }
    for resource in whole["static_resources"]["listeners"] + whole["static_resources"]["clusters"]:
        del resource["@type"]
    together = tmp_path / "together.yaml"
    together.write_text(yaml.safe_dump(whole))
    for path in (bootstrap, together):
        result = validate(path, keys)
        assert result.returncode == 0 and "OK" in result.stdout, result.stderr[-3000:]
        # Nothing in it will stop working with a later Envoy.
        assert "deprecated" not in result.stderr.lower(), result.stderr[-3000:]


@pytest.mark.parametrize("key", KEYS)
def test_the_shipped_files_start_with_one_key_only(tmp_path: pathlib.Path, key: str) -> None:
    ports = {f"port_value: {port}": f"port_value: {free_port()}" for port in (8080, 9901, 9902)}
    # No vendor is asked by a test.
    vendors = {f"address: {host}": "address: vendor.invalid" for host in ("api.openai.com", "api.deepseek.com", "api.shareai.now")}
    bootstrap = copy_of_shipped(tmp_path, **ports, **vendors)
    port = ports["port_value: 8080"].rpartition(" ")[2]
    log = tmp_path / "envoy.log"
    # As docker-compose.yaml gives them: empty, not absent.
    environment = {"PATH": os.environ["PATH"], **dict.fromkeys(KEYS, ""), key: "sk-test"}
    command = [envoy_binary(), "-c", str(bootstrap), "--use-dynamic-base-id", "--concurrency", "1"]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        def answer() -> Optional[httpx.Response]:
            assert process.poll() is None, log.read_text()[-3000:]
            with contextlib.suppress(httpx.ConnectError):
                return httpx.post(f"http://127.0.0.1:{port}{CHAT}", json=chat(), timeout=20, trust_env=False)
            return None

        response = wait_for(answer, 30, "Envoy to serve")
        name = key.removesuffix("_API_KEY").lower()
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "all_providers_failed"
        assert response.headers["x-shunt-attempts"] == f"{name}:unreachable"
        for other in set(KEYS) - {key}:
            assert f"is left out: {other} is not set" in log.read_text()
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    ("path", "schema"),
    [("envoy/docker-compose.yaml", "vendor.compose-spec"), (".github/workflows/ci.yml", "vendor.github-workflows")],
)
def test_a_shipped_file_follows_its_schema(path: str, schema: str) -> None:
    result = subprocess.run([CHECK, "--builtin-schema", schema, ROOT / path], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_compose_file_publishes_on_loopback_only_and_mounts_what_the_files_name() -> None:
    compose = yaml.safe_load((ROOT / "envoy" / "docker-compose.yaml").read_text())
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports and all(str(port).startswith("127.0.0.1:") for port in ports), ports
    assert not any(service.get("network_mode") == "host" for service in compose["services"].values())
    volumes = [volume.split(":") for service in compose["services"].values() for volume in service["volumes"]]
    targets = {target: (ROOT / "envoy" / source).resolve() for source, target, _ in volumes}
    assert targets["/etc/envoy"] == ROOT / "envoy"
    assert targets["/etc/shunt/shunt.wasm"] == ROOT / "dist" / "shunt.wasm"
