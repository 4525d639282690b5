"""`scripts/try-apisix.py` against the stand-in with the files that it writes: what holds, and that each fault is told."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
from typing import Any, Callable, Iterator

import pytest
import yaml

from installed import PUBLIC, Installed
from server import ROOT, WASM, free_port, release_port

PROGRAM = ROOT / "scripts" / "try-apisix.py"

#: Changes config.yaml and apisix.yaml.
Edit = Callable[[str, str], tuple[str, str]]


def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)


class Tried:
    """The folder that `--write` wrote, and an APISIX that runs with it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "try"
        self.apisix = Installed(folder / "apisix")
        self.apisix.wasm.parent.mkdir()
        shutil.copy(WASM, self.apisix.wasm)
        written = run("--write", self.folder)
        assert written.returncode == 0, written.stderr
        self.told = written.stdout
        self.move_fakes()

    def move_fakes(self) -> None:
        """Other tests run on this machine: the fakes get ports that nobody else takes."""
        providers = json.loads((self.folder / "fakes.json").read_text())
        routes = (self.folder / "apisix.yaml").read_text()
        self.ports = [free_port() for _ in providers]
        for provider, port in zip(providers, self.ports):
            assert routes.count(f"port: {provider['port']},") == 1
            routes = routes.replace(f"port: {provider['port']},", f"port: {port},")
            provider["port"] = port
        (self.folder / "apisix.yaml").write_text(routes)
        (self.folder / "fakes.json").write_text(json.dumps(providers))

    def keys(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.folder / "keys.env").read_text().splitlines())

    def start(self, edit: Edit | None = None, keys: dict[str, str] | None = None, workers: int = 1) -> None:
        config, routes = ((self.folder / name).read_text() for name in ("config.yaml", "apisix.yaml"))
        if edit:
            changed = edit(config, routes)
            assert changed != (config, routes)
            config, routes = changed
        (self.apisix.conf / "config.yaml").write_text(config)
        (self.apisix.conf / "apisix.yaml").write_text(routes)
        self.apisix.start(self.keys() if keys is None else keys, workers)

    def tries(self, *more: object) -> "subprocess.CompletedProcess[str]":
        return run("--fakes", self.folder, self.apisix.url, "--control", self.apisix.control, "--logs", self.apisix.logs, *more)

    def remove(self) -> None:
        self.apisix.remove()
        for port in self.ports:
            release_port(port)


@pytest.fixture
def tried(tmp_path: pathlib.Path) -> Iterator[Tried]:
    made = Tried(tmp_path)
    yield made
    made.remove()


def lines(result: "subprocess.CompletedProcess[str]", begin: str) -> list[str]:
    return [line[6:] for line in result.stdout.splitlines() if line.startswith(begin)]


@pytest.mark.parametrize("workers", [1, 3])
def test_with_the_shipped_files_everything_holds(tried: Tried, workers: int) -> None:
    tried.start(workers=workers)
    result = tried.tries()
    assert (lines(result, "FAIL"), lines(result, "--"), result.stderr) == ([], [], ""), result.stdout
    assert result.returncode == 0


def test_the_commands_that_write_prints_lead_there(tried: Tried) -> None:
    for name in ("config.yaml", "apisix.yaml"):
        (tried.apisix.conf / name).write_text(f"mine: {name}\n")
    printed = [line.strip() for line in tried.told.splitlines() if line.startswith("     ")]
    *starting, trying = [line for line in printed if not line.startswith("docker")]
    for line in starting:
        done = tried.apisix.types(line, tried.folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (tried.apisix.conf / "apisix.yaml.before").read_text() == "mine: apisix.yaml\n"
    result = tried.apisix.types(trying, tried.folder)
    assert lines(result, "FAIL") == lines(result, "--") == [] and result.returncode == 0, result.stdout + result.stderr


# Each fault makes its line fail


def told(result: "subprocess.CompletedProcess[str]", what: str) -> str:
    """The line that failed, with what to do about it."""
    assert result.returncode == 1, result.stdout + result.stderr
    _, found, rest = result.stdout.partition(f"FAIL  {what}")
    assert found, f"no line failed that begins with {what!r}:\n{result.stdout}"
    first, *advice = rest.splitlines()
    told = [first]
    for line in advice:
        if not line.startswith("      "):
            break
        told.append(line.strip())
    return " ".join(told)


def routes(old: str, new: str) -> Edit:
    """Replaces a text of apisix.yaml, wherever it stands."""
    return lambda config, routes: (config, routes.replace(old, new))


def config(old: str, new: str) -> Edit:
    return lambda config, routes: (config.replace(old, new), routes)


def test_an_apisix_that_does_not_run_is_told(tried: Tried) -> None:
    result = tried.tries()
    assert "Is APISIX running" in told(result, "the gateway answers")
    assert len(lines(result, "ok")) == 0


def test_a_filter_that_is_not_loaded_is_told(tried: Tried) -> None:
    tried.apisix.wasm.write_bytes(b"not a module")
    tried.start()
    assert "`wasm.plugins`" in told(tried.tries(), "the filter is loaded: 503")


def test_a_plugin_that_is_missing_from_the_list_is_told(tried: Tried) -> None:
    tried.start(config("  - serverless-post-function\n", ""))
    assert "plugins" in told(tried.tries(), "the filter is loaded: 503")


def test_inner_listeners_that_were_moved_are_told(tried: Tried) -> None:
    tried.apisix.tell_inner = False
    tried.start()
    result = tried.tries("--timeout", 20)
    assert "`inner`" in told(result, "a whole answer comes out")


def test_checks_that_are_missing_are_told(tried: Tried) -> None:
    def without(config: str, routes: str) -> tuple[str, str]:
        kept, inside = [], False
        for line in routes.splitlines(keepends=True):
            indented = len(line) - len(line.lstrip())
            if line.strip() == "checks:":
                inside, depth = True, indented
            elif inside and line.strip():
                inside = indented > depth
            if not inside:
                kept.append(line)
        return config, "".join(kept)

    tried.start(without)
    assert "`checks`" in told(tried.tries(), "the checks of the providers are active")


def test_a_key_in_a_log_is_told(tried: Tried) -> None:
    tried.start()
    with open(tried.apisix.logs / "access.log", "a") as log:
        log.write(f"1.2.3.4 GET /v1/models?key={tried.keys()['DEEPSEEK_API_KEY']} 404\n")
    seen = told(tried.tries(), "no key is in a log")
    assert "DEEPSEEK_API_KEY" in seen and "access.log" in seen
    assert "sk-" not in seen


def test_a_log_that_was_copied_before_the_trial_says_nothing_of_it(tried: Tried, tmp_path: pathlib.Path) -> None:
    tried.start()
    (tmp_path / "copied").write_text("before\n")
    result = run("--fakes", tried.folder, tried.apisix.url, "--logs", tmp_path / "copied")
    assert any("no key is in a log" in line for line in lines(result, "--")), result.stdout
    assert not any("no key is in a log" in line for line in lines(result, "ok"))


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (config("proxy_next_upstream error", "# error"), "failover of a stream: openai answers 500"),
        (routes("retries: 5", "retries: 0"), "failover of a stream: openai closes the connection"),
        (routes("providers: [openai, deepseek, shareai]", "providers: [openai]"), "failover of a whole answer: openai answers 500"),
    ],
    ids=["statuses", "retries", "providers"],
)
def test_failover_that_does_not_work_is_told(tried: Tried, edit: Edit, line: str) -> None:
    tried.start(edit)
    told(tried.tries(), line)


@contextlib.contextmanager
def collecting(behind: int) -> Iterator[int]:
    """A proxy that hands an answer over when it is whole."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.forward(self.rfile.read(int(self.headers["content-length"])))

        def do_GET(self) -> None:
            self.forward(None)

        def forward(self, body: bytes | None) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", behind, timeout=30)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            response = connection.getresponse()
            answer = response.read()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            connection.close()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_events_that_come_at_once_are_told(tried: Tried) -> None:
    tried.start()
    with collecting(tried.apisix.ports[PUBLIC]) as port:
        result = run("--fakes", tried.folder, f"127.0.0.1:{port}")
    assert "`proxy-buffering`" in told(result, "a stream comes out event by event")


def test_a_body_that_is_not_handed_over_is_told(tried: Tried) -> None:
    tried.start(routes('if ngx.var.shunt_body ~= "" then', "if false then"))
    assert "serverless-post-function" in told(tried.tries(), "each provider got its own key")


def test_keys_that_were_mixed_up_are_told(tried: Tried) -> None:
    keys = tried.keys()
    keys["OPENAI_API_KEY"], keys["DEEPSEEK_API_KEY"] = keys["DEEPSEEK_API_KEY"], keys["OPENAI_API_KEY"]
    tried.start(keys=keys)
    assert "openai got the key of deepseek" in told(tried.tries(), "each provider got its own key")


def test_keys_that_are_missing_are_told(tried: Tried) -> None:
    tried.start(keys={})
    assert "none of the keys is set" in told(tried.tries(), "the filter is loaded")


def test_client_authentication_in_front_is_told_and_its_key_can_be_given(tried: Tried) -> None:
    tried.start(
        lambda config, routes: (
            config,
            routes.replace("  - id: shunt\n", "  - id: shunt\n    plugins: {key-auth: {header: apikey, hide_credentials: true}}\n").replace(
                "#END", "consumers:\n  - {username: team_a, plugins: {key-auth: {key: team-a-key}}}\n#END"
            ),
        )
    )
    assert "-H" in told(tried.tries(), "the filter is loaded")
    allowed = tried.tries("-H", "apikey: team-a-key")
    assert lines(allowed, "FAIL") == [] and allowed.returncode == 0, allowed.stdout


# With one's own providers


@pytest.fixture
def played(tried: Tried) -> Iterator[tuple[Tried, Any]]:
    """An APISIX whose providers are played by this test, as one's own providers would be there already."""
    import client as fake

    tried.start()
    with contextlib.ExitStack() as running:
        yield tried, [running.enter_context(fake.start(name, port=port)) for name, port in zip(("openai", "deepseek", "shareai"), tried.ports)]


def test_a_provider_with_a_wrong_key_is_moved_from(played: tuple[Tried, Any]) -> None:
    tried, (openai, deepseek, _) = played
    openai.script(default={"do": "status", "status": 401, "code": "invalid_api_key"})
    result = run(tried.apisix.url, "--failing", "openai")
    assert lines(result, "FAIL") == [] and result.returncode == 0, result.stdout
    assert "get up to 6 requests" in result.stdout
    whole, streamed = (line for line in lines(result, "ok") if line.startswith("failover"))
    # The first requests put its key on hold, so it is skipped by now.
    assert "openai:bad_key" in whole and "openai:bad_key" in streamed
    assert len(openai.log()) == 1 and len(deepseek.log()) == 5


def test_a_provider_that_was_to_fail_and_does_not_is_told(played: tuple[Tried, Any]) -> None:
    tried, _ = played
    assert "wrong key" in told(run(tried.apisix.url, "--failing", "openai"), "failover of a whole answer: openai answered")


def test_a_key_that_no_provider_takes_is_told(played: tuple[Tried, Any]) -> None:
    tried, fakes = played
    for provider in fakes:
        provider.script(default={"do": "status", "status": 401, "code": "invalid_api_key", "message": "No such key sk-made-up"})
    result = run(tried.apisix.url)
    assert "refuses the key" in told(result, "a whole answer comes out")
    # A provider's message may repeat anything.
    assert "sk-" not in result.stdout


def test_the_keys_of_the_environment_are_looked_for(played: tuple[Tried, Any]) -> None:
    tried, _ = played
    with open(tried.apisix.logs / "error.log", "a") as log:
        log.write("request: GET /v1/models?key=sk-mine HTTP/1.1\n")
    arguments = (tried.apisix.url, "--logs", tried.apisix.logs)
    assert "OPENAI_API_KEY" in told(run(*arguments, OPENAI_API_KEY="sk-mine"), "no key is in a log")
    clean = run(*arguments, OPENAI_API_KEY="sk-other")
    assert any(line.startswith("no key is in a log (OPENAI_API_KEY not in ") for line in lines(clean, "ok")), clean.stdout
    # Without one, nothing is claimed.
    assert any(line.startswith("no key is in a log: not tried") for line in lines(run(*arguments), "--"))
    missing = run(tried.apisix.url, "--logs", tried.folder / "no.log", OPENAI_API_KEY="sk-other")
    assert "no.log cannot be read" in told(missing, "no key is in a log")


def test_what_cannot_be_used_is_told_before_anything_is_sent(tried: Tried) -> None:
    for arguments, problem in [
        ((), "URL"),
        (("--write", tried.folder, tried.apisix.url), "URL"),
        (("--fakes", tried.folder / "elsewhere", tried.apisix.url), "fakes.json"),
        (("gopher://127.0.0.1",), "no URL"),
        (("-H", "apikey", tried.apisix.url), "'NAME: VALUE'"),
    ]:
        result = run(*arguments)
        assert (result.returncode, result.stdout) == (2, "") and problem in result.stderr, result
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", tried.ports[1]))
        taken.listen()
        result = tried.tries()
    assert result.returncode == 2 and f"port {tried.ports[1]}" in result.stderr and "taken" in result.stderr


def test_the_written_files_are_the_shipped_ones_with_other_providers(tried: Tried) -> None:
    read = yaml.safe_load((tried.folder / "apisix.yaml").read_text())
    shipped = yaml.safe_load((ROOT / "apisix" / "apisix.yaml").read_text())
    providers = {upstream["id"]: upstream for upstream in shipped["upstreams"]}
    for upstream, port in zip(read["upstreams"], tried.ports):
        original = providers.pop(upstream["id"])
        assert (upstream["scheme"], original["scheme"]) == ("http", "https")
        assert upstream["nodes"][0] == {**original["nodes"][0], "host": "127.0.0.1", "port": port}
        upstream["scheme"], upstream["nodes"][0] = original["scheme"], original["nodes"][0]
    assert providers == {} and read == shipped
    assert (tried.folder / "config.yaml").read_text() == (ROOT / "apisix" / "config.yaml").read_text()
    compose = yaml.safe_load((tried.folder / "docker-compose.yaml").read_text())["services"]["apisix"]
    own = yaml.safe_load((ROOT / "apisix" / "docker-compose.yaml").read_text())["services"]["apisix"]
    assert compose["image"] == own["image"]
    assert [mount.split(":", 1)[1] for mount in compose["volumes"]] == [mount.split(":", 1)[1] for mount in own["volumes"]]
    # It says each step, with the folder.
    assert f"{tried.folder}/keys.env" in tried.told and f"--fakes {tried.folder} http://127.0.0.1:9080" in tried.told
