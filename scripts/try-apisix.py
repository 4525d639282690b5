#!/usr/bin/env python3
"""Tries an Apache APISIX that runs with the files of apisix/, and says in words what holds.

With your own providers (they bill up to four short requests, and up to six with --failing):

    try-apisix.py http://127.0.0.1:9080
    try-apisix.py http://127.0.0.1:9080 --failing openai       when APISIX was started with a wrong key for openai

Without keys, with fake providers on this machine, which also fail on purpose:

    try-apisix.py --write /tmp/try          writes the shipped files, pointed at the fakes, and says how to start APISIX
    try-apisix.py --fakes /tmp/try http://127.0.0.1:9080       plays the providers, and tries everything

Each line begins with `ok`, with `FAIL` (what to do is below it), or with `--` (was not tried, and why). The exit status is
0 only if nothing failed. Needs Python 3.10 and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import socket
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, NoReturn, Optional

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "apisix"
FAKES = ROOT / "tests" / "fake"
#: Where --write looks for free ports of the fakes.
FIRST_PORT = 8101
CHAT = "/v1/chat/completions"
#: What a client sends along, made up like those of the fake providers. No provider may get it.
CLIENT_KEY = "sk-made-up-key-of-the-client-for-try-apisix"
QUESTION = "Answer with one short sentence: are you there?"
#: For a stream with a few dozen events.
COUNT = "Count from 1 to 30, in figures, with a blank between them."
#: No provider is so fast that so many events arrive in one piece.
MANY_EVENTS = 20
#: How often APISIX checks a provider, three times over: so long may a provider that was dead count as dead.
CHECKED_WITHIN = 20
#: A check begins a moment after the first request to its provider.
SHOWN_WITHIN = 5
#: The access log is written every three seconds.
LOGGED_WITHIN = 6

Json = Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option, path = parser.add_argument, pathlib.Path
    option("url", nargs="?", metavar="URL", help="where APISIX listens, such as http://127.0.0.1:9080")
    option("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="sent with each request")
    option("--model", default="assistant", help="the model to ask for (default: assistant)")
    option("--failing", metavar="NAME", help="a provider that fails at the moment: another one must answer")
    option("--control", metavar="URL", help="APISIX's control API (http://127.0.0.1:9090), which shows the checks")
    option(
        "--logs",
        metavar="PATH",
        type=path,
        action="append",
        default=[],
        help="a log, or APISIX's folder of logs: is there a key in it? May be given several times",
    )
    option(
        "--config",
        metavar="FILE",
        type=path,
        default=SHIPPED / "config.yaml",
        help="config.yaml, whose nginx_config.envs names the variables of the keys to look for",
    )
    option("--timeout", type=float, default=60, metavar="SECONDS", help="how long to wait for an answer (default: 60)")
    option("--write", metavar="FOLDER", type=path, help="write the files for fake providers there")
    option("--fakes", metavar="FOLDER", type=path, help="play the providers of the folder that --write wrote")
    option(
        "--wasm",
        metavar="FILE",
        type=path,
        default=ROOT / "dist" / "shunt.wasm",
        help="the filter, for docker-compose.yaml of --write (default: dist/shunt.wasm)",
    )
    arguments = parser.parse_args()
    if bool(arguments.write) == bool(arguments.url) or (arguments.write and arguments.fakes):
        parser.error("give a URL, or --write FOLDER (--help says what for)")
    try:
        if arguments.write:
            return write(arguments.write, arguments.wasm)
        if arguments.fakes:
            with playing(arguments.fakes) as fakes:
                return Trial(arguments, fakes).run()
        return Trial(arguments, None).run()
    except Unusable as problem:
        print(f"try-apisix: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


class Unusable(Exception):
    """What was given cannot be used, so nothing was tried."""


# --- The files, pointed at fake providers


@dataclass
class Provider:
    """A provider of apisix.yaml, and the fake that plays it."""

    name: str
    host: str
    variable: str
    dialect: str
    #: Whether it takes every model, under the client's name.
    any_model: bool
    port: int = 0

    @property
    def key(self) -> str:
        """Made up, and unlike anything else that a log could contain."""
        return f"sk-made-up-key-of-{self.name}-for-try-apisix"


def providers_of(text: str) -> list[Provider]:
    """The entries of `providers` in apisix.yaml, in their order. Read by their lines, because Python brings no YAML."""
    found = []
    for _, name, lines in re.findall(r"^( +)([a-z0-9_-]+):\n((?:\1 +\S.*\n)+)", providers_block(text), re.MULTILINE):
        entry = dict(re.findall(r"^ +(host|api_key|dialect): *(\S+)", lines, re.MULTILINE))
        if {"host", "api_key"} <= set(entry):
            variable = entry["api_key"].lstrip("$")
            found.append(Provider(name, entry["host"], variable, entry.get("dialect", "openai"), '"*"' in lines))
    if not found:
        raise Unusable("apisix.yaml has no providers that this program can read")
    return found


def providers_block(text: str) -> str:
    """The lines below `providers:` that are indented deeper."""
    start = re.search(r"^( +)providers:\n", text, re.MULTILINE)
    if start is None:
        return ""
    deeper = re.compile(rf"(?:{start[1]} +\S.*\n|\s*\n)*")
    lines = deeper.match(text, start.end())
    return lines.group() if lines else ""


def write(folder: pathlib.Path, wasm: pathlib.Path) -> int:
    """Writes the shipped files with the providers on loopback ports, and tells how APISIX is started with them."""
    routes = (SHIPPED / "apisix.yaml").read_text()
    providers = providers_of(routes)
    ports = (port for port in range(FIRST_PORT, 65536) if is_free(port))
    for provider in providers:
        provider.port = next(ports)
        routes, places = re.subn(rf"host: {re.escape(provider.host)}, port: 443\b", f"host: 127.0.0.1, port: {provider.port}", routes)
        if not places:
            raise Unusable(f"apisix.yaml has no node {provider.host}:443 for {provider.name}")
    # The fakes speak no TLS.
    routes = routes.replace("scheme: https", "scheme: http")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "apisix.yaml").write_text(routes)
    (folder / "config.yaml").write_text((SHIPPED / "config.yaml").read_text())
    (folder / "keys.env").write_text("".join(f"{provider.variable}={provider.key}\n" for provider in providers))
    (folder / "docker-compose.yaml").write_text(COMPOSE.format(wasm=wasm.resolve()))
    (folder / "fakes.json").write_text(json.dumps([vars(provider) for provider in providers], indent=2) + "\n")
    again = f"{sys.argv[0]} --fakes {folder} http://127.0.0.1:9080 --control http://127.0.0.1:9090"
    at = ", ".join(f"{provider.name} on 127.0.0.1:{provider.port}" for provider in providers)
    print(TOLD.format(folder=folder, at=at, again=again))
    if not wasm.exists():
        print(f"note: there is no {wasm}; `make build` makes it, and --wasm names another one.")
    return 0


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


COMPOSE = """\
# APISIX with the files of this folder, in the network of this machine, because the fake providers listen on its loopback.
services:
  apisix:
    image: apache/apisix:3.18.0-debian
    network_mode: host
    environment: {{APISIX_STAND_ALONE: "true"}}
    env_file: keys.env
    volumes:
      - ./config.yaml:/usr/local/apisix/conf/config.yaml:ro
      - ./apisix.yaml:/usr/local/apisix/conf/apisix.yaml:ro
      - {wasm}:/usr/local/apisix/shunt/shunt.wasm:ro
"""

TOLD = """\
{folder} has APISIX's files with fake providers in them: {at}.

1. Start an APISIX with them. In Docker, on Linux:

     docker compose -f {folder}/docker-compose.yaml up -d

   Or the one that is installed (it is stopped first, and its two files are kept as *.before):

     sudo apisix stop
     cd /usr/local/apisix/conf && sudo cp config.yaml config.yaml.before && sudo cp apisix.yaml apisix.yaml.before
     sudo cp {folder}/config.yaml {folder}/apisix.yaml /usr/local/apisix/conf/
     sudo env $(cat {folder}/keys.env) apisix start

2. Try it:

     {again} --logs /usr/local/apisix/logs

   (With Docker, in place of the last option:  --logs {folder}/log  and before it
   docker compose -f {folder}/docker-compose.yaml logs --no-color -f >{folder}/log &)
"""


@contextlib.contextmanager
def playing(folder: pathlib.Path) -> Iterator[dict[str, "Fake"]]:
    """The fake providers of a folder that `write` wrote, by name."""
    try:
        providers = [Provider(**entry) for entry in json.loads((folder / "fakes.json").read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise Unusable(f"{folder}/fakes.json: {error}; --write {folder} makes it") from None
    if not (FAKES / "client.py").exists():
        raise Unusable(f"the fake providers are in {FAKES} of Shunt's repository, and this is not a copy of it")
    sys.path.insert(0, str(FAKES))
    import client

    with contextlib.ExitStack() as running:
        fakes = {}
        for provider in providers:
            if not is_free(provider.port):
                raise Unusable(f"port {provider.port} of 127.0.0.1, on which {provider.name} is to be played, is taken")
            dialect = provider.dialect if provider.dialect in ("deepseek", "anthropic") else "openai"
            try:
                plays = client.start(provider.name, port=provider.port, dialect=dialect)
            except RuntimeError as error:
                raise Unusable(f"the fake provider {error}") from None
            fakes[provider.name] = Fake(provider, running.enter_context(plays))
        yield fakes


@dataclass
class Fake:
    provider: Provider
    plays: Any

    @property
    def key(self) -> str:
        return self.provider.key


# --- One request


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: In how many pieces the body arrived.
    pieces: int = 0
    #: Why there is no whole answer.
    broken: str = ""

    @property
    def provider(self) -> str:
        return self.headers.get("x-shunt-provider", "")

    @property
    def attempts(self) -> list[str]:
        return [attempt for attempt in self.headers.get("x-shunt-attempts", "").split(",") if attempt]

    @property
    def json(self) -> Json:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def error(self) -> Optional[dict[str, Any]]:
        """The error, if the answer is one in OpenAI's envelope."""
        error = self.json.get("error") if isinstance(self.json, dict) else None
        return error if isinstance(error, dict) and {"message", "type", "param", "code"} <= set(error) else None

    @property
    def data(self) -> list[str]:
        """What the events of a stream carry."""
        return re.findall(r"^data: ?(.*?)\r?$", self.body.decode(errors="replace"), re.MULTILINE)

    @property
    def text(self) -> str:
        """What the model said."""
        documents = [self.json] if self.json else [parsed(data) for data in self.data]
        said = ""
        for document in documents:
            for choice in (document or {}).get("choices") or []:
                part = choice.get("message") or choice.get("delta") or {}
                said += part.get("content") or part.get("reasoning_content") or part.get("refusal") or ""
        return said


def parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class Wrong(Exception):
    """Something does not hold: what was seen, and what to do about it."""

    def __init__(self, seen: str, advice: str = "") -> None:
        super().__init__(seen)
        self.seen = seen
        self.advice = advice


class Untried(Exception):
    """Something was not tried, and how it would be."""


class Gateway:
    """The APISIX that is tried."""

    def __init__(self, url: str, headers: list[str], timeout: float) -> None:
        if "://" not in url:
            url = f"http://{url}"
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unusable(f"{url} is no URL of a server")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        # One connection for all requests, so that one worker of nginx gets them: each worker has a breaker of its own.
        self.connection = kind(parts.hostname, parts.port, timeout=timeout)
        self.url = f"{parts.scheme}://{parts.netloc}"
        self.headers = {name.lower(): value for name, value in map(header, headers)}
        self.sent = 0

    def ask(
        self,
        body: Json = None,
        path: str = CHAT,
        seen: Optional[Callable[[Answer], None]] = None,
        **headers: str,
    ) -> Answer:
        """Sends one request: a POST of a body (a text as it is), or a GET. `seen` is called after each piece of the answer."""
        answer = Answer()
        data = body if isinstance(body, str) or body is None else json.dumps(body)
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if data is not None:
            sent["content-type"] = "application/json"
        self.sent += 1
        try:
            response = self.exchange("GET" if data is None else "POST", path, data, sent)
            answer.status = response.status
            answer.headers = {name.lower(): value for name, value in response.getheaders()}
            while piece := response.read1(65536):
                answer.body += piece
                answer.pieces += 1
                if seen:
                    seen(answer)
            if response.length:
                raise http.client.IncompleteRead(answer.body, response.length)
            # It is read to its end, and the connection is free for the next request.
            response.close()
        except (OSError, http.client.HTTPException) as error:
            answer.broken = f"{type(error).__name__}: {error}"
            self.connection.close()
        return answer

    def exchange(self, method: str, path: str, data: Optional[str], headers: dict[str, str]) -> http.client.HTTPResponse:
        kept = self.connection.sock is not None
        try:
            self.connection.request(method, path, data, headers)
            return self.connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            self.connection.close()
            if not kept:
                raise
            # A connection that was kept may have been closed in the meantime.
            self.connection.request(method, path, data, headers)
            return self.connection.getresponse()


def header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise Unusable(f"-H wants 'NAME: VALUE', and got {text!r}")
    return name.strip(), value.strip()


# --- What went wrong

ERROR_LOG = "The error log (logs/error.log, or `docker compose logs`) says which."

#: By the outcome of an attempt, as in x-shunt-attempts.
ATTEMPTS = {
    "bad_key": "The provider refuses the key: is the variable set to the right one where APISIX was started?",
    "out_of_quota": "The account has no credit, or its limit is reached.",
    "rate_limited": "The provider limits the requests of this account. Try again in a minute.",
    "no_such_model": "The provider does not have this model: see `models` in apisix.yaml.",
    "unreachable": "No connection: can this machine (or container) reach the provider's host, over TLS?",
    "too_slow": "The provider did not answer in time: `limits` in apisix.yaml.",
    "truncated": "The provider's answer broke off.",
}


def explain(answer: Answer) -> NoReturn:
    """Says what an answer means that should not have come."""
    if answer.broken and not answer.status:
        raise Wrong(f"no answer: {answer.broken}", "Does APISIX run, and listen there? Its error log may say more.")
    if answer.broken:
        raise Wrong(f"the answer broke off: {answer.broken}", "The error log may say why.")
    if answer.error is not None:
        explain_error(answer)
    page = answer.body.lstrip()[:1] == b"<"
    if answer.status == 503 and page:
        raise Wrong(
            "503 and a page of APISIX's own",
            "The filter is not loaded (is the file of `wasm.plugins` there, and readable?), or a plugin that apisix.yaml uses "
            f"is missing from `plugins` of config.yaml. {ERROR_LOG}",
        )
    if answer.status == 404 and isinstance(answer.json, dict) and "error_msg" in answer.json:
        raise Wrong(
            "404 of APISIX's own: it has no route for this path",
            "Is apisix.yaml in APISIX's folder conf, does it end with `#END`, and is `role: data_plane` in config.yaml? If it "
            "is there, it has a mistake: the error log names it.",
        )
    if answer.status in (401, 403) and not answer.provider:
        raise Wrong(f"{answer.status}: client authentication is in front", "Add the client's key: -H 'apikey: …'.")
    raise Wrong(f"status {answer.status}, {len(answer.body)} bytes of {answer.headers.get('content-type', 'no type')}")


def explain_error(answer: Answer) -> NoReturn:
    code = str((answer.error or {}).get("code"))
    if code == "gateway_misconfigured":
        raise Wrong(
            f"{answer.status} gateway_misconfigured",
            "The filter is loaded, but its configuration has mistakes, none of the keys is set, or the snippets of config.yaml "
            f"or `inner` do not fit the listeners. {ERROR_LOG}",
        )
    if answer.status == 401 and not answer.attempts:
        raise Wrong(f"401 {code}: client authentication is in front", "Add the client's key: -H 'apikey: …'.")
    outcomes = dict.fromkeys(attempt.partition(":")[2] for attempt in answer.attempts)
    advice = [ATTEMPTS[outcome] for outcome in outcomes if outcome in ATTEMPTS]
    raise Wrong(f"{answer.status} {code}; attempts: {', '.join(answer.attempts) or 'none'}", " ".join(advice))


def need(holds: Any, seen: str, advice: str = "") -> None:
    if not holds:
        raise Wrong(seen, advice)


def answered(answer: Answer) -> None:
    """That a provider answered, and the filter saw it."""
    if answer.broken or answer.status != 200:
        explain(answer)
    need(
        answer.provider,
        "200 without x-shunt-provider: something else than the filter answered",
        "Is the URL that of the listener with the route `shunt`, and has no other route its path?",
    )


def whole(answer: Answer) -> None:
    answered(answer)
    document = answer.json
    need(isinstance(document, dict) and document.get("object") == "chat.completion", "200, but no chat completion")
    need(answer.text, "a chat completion without content")


def stream(answer: Answer) -> None:
    answered(answer)
    kind = answer.headers.get("content-type", "")
    need(kind.startswith("text/event-stream"), f"200, but {kind or 'no content type'} instead of an event stream")
    for data in answer.data:
        if "error" in parsed(data):
            error = parsed(data)["error"]
            raise Wrong(f"the stream ends with an error: {error.get('code') if isinstance(error, dict) else 'unnamed'}")
    need(answer.text, "a stream without content")
    need(answer.data[-1:] == ["[DONE]"], "the stream does not end with [DONE]", "It broke off. The error log may say why.")


# --- The trial


class Trial:
    """Asks, prints a line for each thing that should hold, and counts."""

    def __init__(self, arguments: argparse.Namespace, fakes: Optional[dict[str, Fake]]) -> None:
        self.options = arguments
        self.fakes = fakes
        # With one's own providers, client authentication may be in front, and want a key of its own.
        client = [f"authorization: Bearer {CLIENT_KEY}"] if fakes is not None else []
        self.gateway = Gateway(arguments.url, [*client, *arguments.header], arguments.timeout)
        self.failed = 0
        self.held = 0
        self.untried = 0
        #: The providers that answered or failed here: those that must have a check by now.
        self.asked: dict[str, None] = {}
        self.logs = [path for given in arguments.logs for path in log_files(given)]
        self.sizes = {path: path.stat().st_size for path in self.logs if path.is_file()}

    def run(self) -> int:
        print(self.announcement())
        if not self.line("the gateway answers", self.reachable) or not self.line("the filter is loaded", self.loaded):
            return self.summary()
        if self.fakes is not None:
            self.line("the fake providers are found", self.found)
        self.line("a whole answer comes out", self.whole)
        self.line("a stream comes out event by event, and ends with [DONE]", self.stream)
        self.line("a stream comes out with `x-shunt-stream: complete`", self.complete)
        self.line("a request that is refused gets an error in OpenAI's envelope", self.refused)
        self.line("an unknown model goes to a provider that takes any, or gets an error in the envelope", self.unknown)
        if self.fakes is not None:
            self.with_fakes(self.fakes)
        else:
            self.line("failover of a whole answer", lambda: self.moved_from_failing(False))
            self.line("failover of a stream", lambda: self.moved_from_failing(True))
        self.line("the checks of the providers are active", self.checks)
        self.line("the access log has the records of these requests", self.records)
        self.line("no key is in a log", self.no_key)
        return self.summary()

    def with_fakes(self, fakes: dict[str, Fake]) -> None:
        first = next(iter(fakes))
        self.line(f"failover of a whole answer: {first} answers 500", lambda: self.moved(False, {"do": "status"}))
        self.line(f"failover of a stream: {first} answers 500", lambda: self.moved(True, {"do": "status"}))
        self.line(f"failover of a stream: {first} closes the connection", lambda: self.moved(True, {"do": "close_before_headers"}))
        self.line(f"failover of a whole answer: {first} is dead", lambda: self.moved(False, None))
        self.line(f"a complete stream moves although {first} broke off in it", self.complete_moves)
        self.line("each provider got its own key and its own name for the model, and no other's", self.own_keys)

    def announcement(self) -> str:
        if self.fakes is not None:
            playing = ", ".join(f"{name} on 127.0.0.1:{fake.provider.port}" for name, fake in self.fakes.items())
            return f"Trying {self.gateway.url}. This program plays the providers: {playing}."
        number = 6 if self.options.failing else 4
        return f"Trying {self.gateway.url}. Your providers get up to {number} requests of this, with short answers."

    def line(self, what: str, check: Callable[[], Optional[str]]) -> bool:
        """Tries one thing, and prints its line when it is known."""
        try:
            told = check()
        except Untried as why:
            self.untried += 1
            print(f"--    {what}: not tried. {why}", flush=True)
            return False
        except Wrong as wrong:
            self.failed += 1
            print(f"FAIL  {what}: {wrong.seen}", flush=True)
            if wrong.advice:
                print(f"      {wrong.advice}", flush=True)
            return False
        except OSError as error:
            self.failed += 1
            print(f"FAIL  {what}: {error}", flush=True)
            return False
        self.held += 1
        print(f"ok    {what}{f' ({told})' if told else ''}", flush=True)
        return True

    def summary(self) -> int:
        parts = [f"{self.held} held", f"{self.failed} failed", *([f"{self.untried} not tried"] if self.untried else [])]
        print(f"{', '.join(parts)}; {self.gateway.sent} requests were sent.")
        return 1 if self.failed else 0

    def chat(self, stream: bool = False, **more: Any) -> Json:
        body = {"model": self.options.model, "messages": [{"role": "user", "content": QUESTION}], **more}
        return {**body, "stream": True} if stream else body

    def ask(self, body: Json, **more: Any) -> Answer:
        answer = self.gateway.ask(body, **more)
        for attempt in answer.attempts:
            self.asked[attempt.partition(":")[0]] = None
        return answer

    # What is tried

    def reachable(self) -> str:
        answer = self.gateway.ask(path="/v1/try-apisix")
        if not answer.status:
            raise Wrong(
                f"nothing answers at {self.gateway.url} ({answer.broken})",
                "Is APISIX running (`apisix start`, or `docker compose ps`)? Its logs/error.log says why it ended.",
            )
        return f"status {answer.status}, {answer.headers.get('server', 'no server named')}"

    def loaded(self) -> str:
        # No route has this path, which is the filter's own answer, and no provider is asked.
        answer = self.gateway.ask({}, path="/v1/try-apisix")
        if answer.error is None or answer.error["code"] != "unknown_url":
            explain(answer)
        return "it refuses a path that no route has"

    def found(self) -> Optional[str]:
        """Waits until the first provider answers: if APISIX was started before the fakes, its checks found them dead."""
        first = next(iter(self.fakes or {}))
        deadline = time.monotonic() + CHECKED_WITHIN
        while True:
            answer = self.ask(self.chat())
            if answer.provider == first:
                return f"{first} answers"
            # Whom the checks found dead is skipped, or fails at once; nothing else gets better by waiting.
            waiting = answer.provider or any(attempt.endswith(":unreachable") for attempt in answer.attempts)
            if not waiting or time.monotonic() > deadline:
                answered(answer)
                raise Wrong(
                    f"{first} gets no request: {', '.join(answer.attempts)} {answer.headers.get('x-shunt-degraded', '')}".strip(),
                    "Was APISIX started with the files and the keys.env of that folder?",
                )
            time.sleep(1)

    def whole(self) -> str:
        answer = self.ask(self.chat())
        whole(answer)
        return f"from {answer.provider}, whose name for the model is {answer.headers.get('x-shunt-model')}"

    def stream(self) -> str:
        release = self.hold_stream()
        question = [{"role": "user", "content": COUNT}]
        answer = self.ask(self.chat(stream=True, messages=question), seen=release)
        stream(answer)
        events = len(answer.data)
        late = (
            "all events came at once",
            "`proxy-buffering` is missing from a plugin config of apisix.yaml, or something in front of APISIX collects the answer.",
        )
        if release is None:
            need(answer.pieces > 1 or events < MANY_EVENTS, *late)
        else:
            need(release.first_seen, *late)
        return f"{events} events in {answer.pieces} piece{'s' * (answer.pieces != 1)} from {answer.provider}"

    def hold_stream(self) -> Optional["Release"]:
        """The first fake sends one piece, and the others only when the first one has arrived here."""
        if self.fakes is None:
            return None
        first = next(iter(self.fakes.values()))
        first.plays.script({"do": "hold", "after": 1})
        return Release(first.plays)

    def complete(self) -> str:
        answer = self.ask(self.chat(stream=True), x_shunt_stream="complete")
        stream(answer)
        return f"{len(answer.data)} events from {answer.provider}"

    def refused(self) -> str:
        answer = self.ask('{"model": "assistant", "messages": [')
        if answer.broken or answer.error is None:
            explain(answer)
        need(answer.status == 400, f"status {answer.status} instead of 400")
        return f"400 {answer.error['code']}"

    def unknown(self) -> str:
        model = "try-apisix-no-such-model"
        answer = self.ask({**self.chat(), "model": model, "max_tokens": 16})
        if answer.status == 200:
            whole(answer)
            return f'{answer.provider}, whose `models` has "*"'
        if answer.error is None or answer.status >= 500:
            explain(answer)
        return f"{answer.status} {answer.error['code']}"

    def moved_from_failing(self, streamed: bool) -> str:
        failing = self.options.failing
        if not failing:
            raise Untried("Start APISIX with a wrong key for one provider and add --failing NAME, or use --write and --fakes.")
        answer = self.ask(self.chat(stream=streamed))
        (stream if streamed else whole)(answer)
        need(answer.provider != failing, f"{failing} answered", "Was APISIX restarted with the wrong key?")
        skipped = answer.headers.get("x-shunt-degraded", "")
        need(
            any(attempt.startswith(f"{failing}:") for attempt in [*answer.attempts, *skipped.split(",")]),
            f"{failing} was not tried: {', '.join(answer.attempts)}",
            "Does the route's `providers` name it before the one that answered, and is its variable set?",
        )
        return ", ".join(answer.attempts) + (f"; skipped: {skipped}" if skipped else "")

    # With fakes only

    def moved(self, streamed: bool, step: Json) -> str:
        """The first provider fails; the same request is answered by the second one."""
        first, second = list((self.fakes or {}).values())[:2]
        with failing(first, step):
            answer = self.ask(self.chat(stream=streamed))
        (stream if streamed else whole)(answer)
        name = first.provider.name
        if not answer.attempts[:1] or not answer.attempts[0].startswith(f"{name}:") or answer.provider == name:
            raise Wrong(f"attempts: {', '.join(answer.attempts)}, skipped: {answer.headers.get('x-shunt-degraded', 'nobody')}")
        need(answer.provider == second.provider.name, f"{answer.provider} answered instead of {second.provider.name}")
        # The next request finds the first provider well, so its failures are not in a row.
        whole(self.ask(self.chat()))
        return ", ".join(answer.attempts)

    def complete_moves(self) -> str:
        first, second = list((self.fakes or {}).values())[:2]
        with failing(first, {"do": "cut", "after": 1}):
            answer = self.ask(self.chat(stream=True), x_shunt_stream="complete")
        stream(answer)
        need(answer.provider == second.provider.name, f"{answer.provider} answered instead of {second.provider.name}")
        whole(self.ask(self.chat()))
        return ", ".join(answer.attempts)

    def own_keys(self) -> str:
        fakes = self.fakes or {}
        keys = {CLIENT_KEY, *(fake.key for fake in fakes.values())}
        seen = []
        for name, fake in fakes.items():
            log = fake.plays.log()
            if not log:
                continue
            seen.append(name)
            for entry in log:
                got = {key for key in keys for _, value in entry["headers"] if key in value}
                need(
                    got == {fake.key},
                    f"{name} got the key of {self.owners(got)}",
                    "Was APISIX started with the variables of keys.env, and are they in nginx_config.envs?",
                )
                need(
                    entry["model"] != self.options.model or fake.provider.any_model,
                    f"{name} got the client's name for the model ({self.options.model})",
                    "The function of `serverless-post-function` in `shunt-attempt` is missing, or an inner route has a plugin of this name.",
                )
        need(len(seen) > 1, f"only {', '.join(seen) or 'nobody'} got a request")
        return f"looked at {', '.join(seen)}"

    def owners(self, keys: set[str]) -> str:
        names = [name for name, fake in (self.fakes or {}).items() if fake.key in keys]
        if CLIENT_KEY in keys:
            names.append("the client")
        return " and ".join(names) or "nobody that this program knows"

    # Checks and logs

    def checks(self) -> str:
        if not self.options.control:
            raise Untried("Add --control http://127.0.0.1:9090, on the machine that APISIX runs on.")
        control = Gateway(self.options.control, [], 10)
        deadline = time.monotonic() + SHOWN_WITHIN
        while True:
            lacking, shown = self.without_checks(control)
            if not lacking:
                return shown
            if time.monotonic() > deadline:
                raise Wrong(
                    lacking,
                    "Does the route of the provider name an entry of `upstreams` that has `checks`? APISIX does not start those of "
                    "an `upstream` inside a route that has a `plugin_config_id`.",
                )
            time.sleep(0.5)

    def without_checks(self, control: Gateway) -> tuple[str, str]:
        """What is missing, if anything; and what there is."""
        answer = control.ask(path="/v1/healthcheck")
        if answer.status != 200:
            raise Wrong(
                f"{control.url}/v1/healthcheck: {answer.broken or f'status {answer.status}'}",
                "Is that APISIX's control API (`apisix.control` in config.yaml; by default 127.0.0.1:9090)?",
            )
        # An empty list is `{}` here.
        entries = answer.json if isinstance(answer.json, list) else []
        nodes = {str(entry.get("name")).rpartition("/")[2]: entry.get("nodes") or [] for entry in entries}
        if not any(nodes.values()):
            return "/v1/healthcheck shows no nodes", ""
        # ADC gives its services ids of its own: then they cannot be told apart, and only counted.
        if set(nodes) & set(self.asked):
            lacking = [name for name in self.asked if not nodes.get(name)]
            if lacking:
                return f"/v1/healthcheck shows no nodes for {', '.join(lacking)}", ""
        elif sum(1 for found in nodes.values() if found) < len(self.asked):
            return f"/v1/healthcheck shows {len(nodes)} of {len(self.asked)} providers", ""
        return "", "; ".join(f"{name}: {node_states(found)}" for name, found in nodes.items() if found)

    def records(self) -> str:
        logs = [path for path in self.sizes if path.name == "access.log"]
        if not logs:
            raise Untried("Add --logs FOLDER with APISIX's logs/access.log (in Docker it is standard output).")
        deadline = time.monotonic() + LOGGED_WITHIN
        while not (found := sum(records_since(path, self.sizes[path]) for path in logs)):
            need(
                time.monotonic() < deadline,
                f"{logs[0]} got no record",
                "`access_log logs/access.log main …` belongs into the server snippet of config.yaml, and the log format of it.",
            )
            time.sleep(0.2)
        return f"{found} of {self.gateway.sent} so far"

    def no_key(self) -> str:
        if not self.options.logs:
            raise Untried("Add --logs with APISIX's folder of logs, or a file.")
        need(
            self.logs,
            f"there is no log in {', '.join(map(str, self.options.logs))}",
            "In Docker: docker compose logs --no-color -f >FILE &, and --logs FILE.",
        )
        keys = self.keys()
        if self.fakes is not None:
            self.key_in_query()
        for path in self.logs:
            try:
                named = sorted({name for name, key in keys.items() if contains(path, key.encode())})
            except OSError as error:
                raise Wrong(f"{path} cannot be read: {error.strerror}", "Run this as who may read it.") from None
            need(not named, f"{path} contains {', '.join(named)}", "Please report it, without the key. And renew the key.")
        # A copy that was made before this trial says nothing of it.
        if all(path.stat().st_size == self.sizes.get(path) for path in self.logs):
            raise Untried("Nothing was written into these logs since the trial began. Name those that APISIX writes.")
        return f"{', '.join(keys)} not in {', '.join(map(str, self.logs))}"

    def key_in_query(self) -> None:
        """Some clients send their key so. nginx logs the line of a request whose upstream fails."""
        with failing(next(iter((self.fakes or {}).values())), None):
            for streamed in (False, True):
                self.ask(self.chat(stream=streamed), path=f"{CHAT}?api_key={CLIENT_KEY}")

    def keys(self) -> dict[str, str]:
        """The keys to look for, by the names of their variables."""
        if self.fakes is not None:
            return {**{fake.provider.variable: fake.key for fake in self.fakes.values()}, "the client's": CLIENT_KEY}
        try:
            names = variables_of(self.options.config.read_text())
        except OSError as error:
            raise Unusable(f"{self.options.config}: {error.strerror}") from None
        keys = {name: os.environ[name] for name in names if os.environ.get(name)}
        if not keys:
            raise Untried(f"Set {', '.join(names)} for this program as for APISIX, so that it can look for them.")
        return keys


class Release:
    """Lets a held stream go on, once its first content has arrived."""

    #: What has not arrived after so many seconds is being collected somewhere, and would never arrive.
    PATIENCE = 5

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.first_seen = False
        self.given_up = threading.Event()
        self.timer = threading.Timer(self.PATIENCE, self.give_up)
        self.timer.daemon = True
        self.timer.start()

    def give_up(self) -> None:
        self.given_up.set()
        self.provider.release()

    def __call__(self, answer: Answer) -> None:
        if not self.first_seen and answer.text and not self.given_up.is_set():
            self.first_seen = True
            self.timer.cancel()
            self.provider.release()


@contextlib.contextmanager
def failing(fake: Fake, step: Json) -> Iterator[None]:
    """A fake that does this for every request, or is dead."""
    if step is None:
        fake.plays.listen(False)
    else:
        fake.plays.script(default=step)
    try:
        yield
    finally:
        if step is None:
            fake.plays.listen(True)
        else:
            fake.plays.script(default={"do": "answer"})


def node_states(nodes: list[Json]) -> str:
    return ", ".join(f"{node.get('ip')}:{node.get('port')} {node.get('status')}" for node in nodes)


def variables_of(text: str) -> list[str]:
    """The entries of `nginx_config.envs`."""
    found = re.search(r"^ +envs:\n((?: +(?:- +.*|#.*)\n)+)", text, re.MULTILINE)
    return re.findall(r"^ +- +([A-Z_a-z0-9]+)", found[1], re.MULTILINE) if found else []


def log_files(given: pathlib.Path) -> list[pathlib.Path]:
    try:
        if given.is_dir():
            return sorted(path for path in given.iterdir() if path.suffix == ".log" and path.is_file())
    except OSError as error:
        raise Unusable(f"{given}: {error.strerror}") from None
    return [given]


def records_since(path: pathlib.Path, size: int) -> int:
    """How many records of the filter a log has got since it had this size."""
    with open(path, "rb") as log:
        # A log that has become shorter was rotated.
        log.seek(size if path.stat().st_size >= size else 0)
        return sum(1 for line in log if b'"attempts"' in line and line.startswith(b"{"))


def contains(path: pathlib.Path, key: bytes) -> bool:
    rest = b""
    with open(path, "rb") as log:
        while piece := log.read(1 << 20):
            rest += piece
            if key in rest:
                return True
            rest = rest[-len(key) :]
    return False


if __name__ == "__main__":
    sys.exit(main())
