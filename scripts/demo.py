"""The story of Shunt on a real Envoy with three fake providers.

    demo.py         tells the story; exit status 0 only if every step held; leaves nothing running
    demo.py up      starts the same in the background, to play with curl
    demo.py down    ends exactly what `up` started

`up` listens on 127.0.0.1:8080; SHUNT_PORT in the environment names another port.
"""

from __future__ import annotations

import contextlib
import decimal
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Callable, Iterator, Optional

ROOT = pathlib.Path(__file__).resolve().parents[1]
STATE = ROOT / ".run" / "demo.json"
LOG = ROOT / ".run" / "demo.log"

Json = dict[str, Any]
Step = dict[str, Any]

#: What differs from the tests' configuration: limits that a person can watch. The breaker opens after failures in a row
#: only, so that the few requests of the story do not add up to a rate; and no hold is longer than the demo's patience.
CHANGES: Json = {
    "limits": {"first_token": "2s", "answer": "10s"},
    "breaker": {"consecutive_failures": 5, "minimum_requests": 1000, "open": "3s", "max_open": "30s"},
    "retry": {"wait": "3s"},
    "holds": {"max": "2s"},
    # As on 2026-10 (docs/accounting.md); the third provider has no price, and is told as unpriced.
    "prices": {
        "openai": {"gpt-5.4-mini": {"input": 0.75, "cached_input": 0.075, "output": 4.50}},
        "deepseek": {"deepseek-flash": {"input": 0.15, "cached_input": 0.003, "output": 0.60}},
    },
}

#: Where `up` puts things: API port and control port of each provider. Taken ones are replaced by free ones.
PORTS = {"openai": (8101, 8201), "deepseek": (8102, 8202), "shareai": (8103, 8203)}


def main() -> int:
    command = sys.argv[1:] or ["run"]
    commands: dict[str, Callable[[], int]] = {"run": run, "up": up, "down": down, "serve": serve}
    if len(command) != 1 or command[0] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    return commands[command[0]]()


# --- What the story and the background share: three fakes and Envoy


class Stopped(BaseException):
    """A signal asked us to end."""


class Signals:
    """Turns SIGINT, SIGTERM and SIGHUP into [`Stopped`], but never between starting a process and noting it."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.received: Optional[int] = None
        self.held = 0
        self.ending = False
        for number in self.NUMBERS:
            # What a parent had ignored (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:
                signal.signal(number, self._receive)

    def _receive(self, number: int, _: object) -> None:
        self.received = self.received or number
        if not self.held and not self.ending:
            raise Stopped

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1
        if self.received and not self.held and not self.ending:
            raise Stopped


@contextlib.contextmanager
def world(signals: Signals, port: Optional[int] = None, fixed: bool = False) -> Iterator[tuple[dict[str, Any], Any]]:
    """Three fakes and Envoy, all of them ended at the end."""
    sys.path.insert(0, str(ROOT / "tests" / "gateway"))
    from support import PROVIDERS, Gateway, Upstream, config, fake, wait_for

    fakes: dict[str, Any] = {}
    gateway: Any = None
    try:
        for name in PROVIDERS:
            ports = [at if is_free(at) else 0 for at in PORTS[name]] if fixed else [0, 0]
            with signals.hold():
                fakes[name] = fake.start(
                    name,
                    port=ports[0],
                    control_port=ports[1],
                    dialect="deepseek" if name == "deepseek" else "openai",
                )
        upstreams = {name: Upstream(provider.port) for name, provider in fakes.items()}
        with signals.hold():
            gateway = Gateway(config(CHANGES), upstreams, workers=2)
            gateway.port = port or gateway.port
            gateway.start(wait=False)
        try:
            wait_for(gateway.is_serving, 30, "Envoy to serve")
        except Exception as error:
            raise SystemExit(f"Envoy did not start: {error}\n{gateway.log()[-4000:]}") from None
        yield fakes, gateway
    finally:
        # From here a second Ctrl-C only waits for the end.
        signals.ending = True
        if gateway is not None:
            gateway.stop()
        for provider in fakes.values():
            provider.stop()


# --- The story


class Story:
    """Asks, prints what came, and checks it from both sides."""

    def __init__(self, fakes: dict[str, Any], gateway: Any) -> None:
        import support

        self.support = support
        self.fakes = fakes
        self.gateway = gateway
        self.failures = 0
        self.steps = 0
        self.asked = 0
        self.bold, self.red, self.plain = ("\033[1m", "\033[31m", "\033[0m") if colours() else ("", "", "")

    def step(self, title: str, sentence: str) -> None:
        """A new chapter: every provider is healthy again, its log is empty."""
        for provider in self.fakes.values():
            provider.reset()
        self.steps += 1
        print(f"\n{self.bold}{self.steps}. {title}{self.plain}\n   {sentence}", flush=True)

    def say(self, sentence: str) -> None:
        print(f"   {sentence}", flush=True)

    def die(self, *names: str) -> None:
        """Providers refuse connections; returns when Envoy has noticed that the old ones are gone."""
        for name in names:
            self.fakes[name].listen(False)
        for name in names:
            active = f"cluster.{name}.upstream_cx_active"
            self.support.wait_for(lambda: self.gateway.stat(active) == 0, 5, f"{active} to be 0")

    def expect(self, what: str, expected: Any, seen: Any) -> None:
        if expected != seen:
            self.fail(what, expected, seen)

    def fail(self, what: str, expected: Any, seen: Any) -> None:
        self.failures += 1
        print(f"     {self.red}DID NOT HOLD: {what}{self.plain}")
        print(f"       expected: {expected}\n       seen:     {seen}", flush=True)

    def ask(
        self,
        what: str,
        answered: Optional[str],
        attempts: list[str],
        *,
        stream: bool = False,
        status: int = 200,
        seconds: tuple[float, float] = (0.0, 1.5),
        degraded: Optional[str] = None,
        asked: Optional[dict[str, int]] = None,
    ) -> Any:
        """One request. `asked`: how many requests each provider must have received for it, by default its attempts."""
        before = {name: len(provider.log()) for name, provider in self.fakes.items()}
        self.asked += 1
        try:
            answer = self.support.ask(self.gateway, stream=stream)
        except Exception as error:
            self.fail(f"{what}: the request", "an answer", f"{type(error).__name__}: {error}")
            return None
        self.line(what, answer)
        self.expect("the status", status, answer.status)
        self.expect("who answered (x-shunt-provider)", answered, answer.provider)
        self.expect("the attempts (x-shunt-attempts)", attempts, answer.attempts)
        self.expect("who was left out (x-shunt-degraded)", degraded, answer.headers.get("x-shunt-degraded"))
        if not seconds[0] <= answer.seconds <= seconds[1]:
            self.fail("the time", f"{seconds[0]} to {seconds[1]} s", f"{answer.seconds:.2f} s")
        if answered and answer.status == 200:
            self.check_answer(answer, answered, stream)
        self.check_providers(before, attempts if asked is None else asked)
        return answer

    def line(self, what: str, answer: Any) -> None:
        who = answer.provider or "nobody"
        attempts = " > ".join(attempt.replace(":", " ") for attempt in answer.attempts)
        took = f"{answer.seconds * 1000:.0f} ms" if answer.seconds < 1 else f"{answer.seconds:.2f} s"
        print(f"   {what:<39} {answer.status}  {who:<9} {took:>7}   {attempts}", flush=True)

    def check_answer(self, answer: Any, provider: str, stream: bool) -> None:
        """The caller's view: the answer is whole, and one provider's."""
        try:
            if stream:
                answer.assert_whole_stream()
            self.expect("the text of the answer", f"Hello from {provider}.", answer.text)
        except Exception as error:
            self.fail("the answer's form", "a whole answer in OpenAI's form", f"{error!r} in {answer.raw[-300:]!r}")

    def check_providers(self, before: dict[str, int], asked: Any) -> None:
        """The providers' view: who was asked how often, and each with its own key, model, path and host only."""
        if isinstance(asked, list):
            names = [attempt.partition(":")[0] for attempt in asked]
            asked = {name: names.count(name) for name in names}
        for name, provider in self.fakes.items():
            seen = provider.log()[before[name] :]
            self.expect(f"how many requests {name} received", asked.get(name, 0), len(seen))
            for entry in seen:
                self.check_view(name, entry)

    def check_view(self, name: str, entry: Json) -> None:
        model, path = self.support.PROVIDERS[name]
        headers = {key.lower(): value for key, value in entry["headers"]}
        self.expect(f"the key that {name} saw", f"Bearer sk-{name}", headers.get("authorization"))
        self.expect(f"the model that {name} saw", model, entry["model"])
        self.expect(f"the path that {name} saw", path, entry["path"])
        self.expect(f"the host that {name} saw", self.support.BASE["providers"][name]["host"], headers.get("host"))
        self.expect(f"further headers that {name} saw", set(), set(headers) - self.support.MAY_CROSS)
        everything = json.dumps(entry)
        foreign = [*(f"sk-{other}" for other in self.fakes if other != name), self.support.CLIENT_KEY]
        self.expect(f"keys of others that {name} saw", [], [key for key in foreign if key in everything])


def tell(story: Story) -> None:
    openai, deepseek = story.fakes["openai"], story.fakes["deepseek"]
    once = ["openai:answered"]

    def to_next(outcome: str) -> list[str]:
        return [f"openai:{outcome}", "deepseek:answered"]

    story.step("All is well", "The first provider of the plan answers; the others are not asked.")
    story.ask("a plain request", "openai", once)
    story.ask("a streamed request", "openai", once, stream=True)

    story.step("The provider is dead", "It refuses connections, so the next one answers, in the same request.")
    story.die("openai")
    story.ask("a plain request", "deepseek", to_next("unreachable"), asked={"deepseek": 1})
    story.ask("a streamed request", "deepseek", to_next("unreachable"), stream=True, asked={"deepseek": 1})
    openai.listen(True)
    story.ask("it is back", "openai", once)

    story.step("The provider answers 503", "Each provider gets its own key, model name and path; the client's key goes nowhere.")
    openai.script({"do": "status", "status": 503})
    story.ask("503 to a plain request", "deepseek", to_next("overloaded"))
    seen = deepseek.log()[-1]
    headers = {key.lower(): value for key, value in seen["headers"]}
    story.say(f"deepseek saw: POST {headers['host']}{seen['path']}, model {seen['model']}, {headers['authorization']}")

    story.step("A stream breaks before its first token", "Nothing has reached the client yet, so it sees one whole stream.")
    openai.script({"do": "cut", "after": 0})
    answer = story.ask("cut before the first token", "deepseek", to_next("truncated"), stream=True)
    if answer is not None and answer.status == 200:
        story.say(f"the client saw {len(answer.events) - 1} events and [DONE]: {answer.text!r}")
    story.ask("the next stream", "openai", once, stream=True)

    story.step("The provider limits the rate (429)", "A short Retry-After is worth waiting for; after a long one the next provider answers at once.")
    limit = {"do": "status", "status": 429, "code": "rate_limit_exceeded"}
    openai.script({**limit, "headers": {"retry-after": "1"}})
    story.ask("Retry-After: 1", "openai", ["openai:rate_limited", "openai:answered"], seconds=(0.95, 2.5))
    openai.script({**limit, "headers": {"retry-after": "60"}})
    story.ask("Retry-After: 60", "deepseek", to_next("rate_limited"), seconds=(0.0, 1.5))
    held = time.monotonic()
    story.ask("while it is held", "deepseek", ["deepseek:answered"], degraded="openai:rate_limited")
    story.say("Meanwhile it is left alone (this demo caps holds at 2 s; the default cap is an hour).")
    time.sleep(max(0.0, held + 2.1 - time.monotonic()))
    story.ask("after the hold", "openai", once)

    story.step("An error hides in a 200 stream", "The status says all is well, the first event does not: once more, then the next provider.")
    error = {"do": "error_event_200"}
    openai.script(error, error)
    story.ask("an error event, twice", "deepseek", ["openai:server_error", *to_next("server_error")], stream=True)

    story.step("The provider is silent", "No first token within the limit (here 2 s): the next provider answers.")
    openai.script({"do": "silent", "for": 10})
    story.ask("no first token", "deepseek", to_next("too_slow"), stream=True, seconds=(1.9, 3.5))

    story.step("The breaker", "After five failures in a row the provider is not asked any more, until it has had 3 s of peace.")
    story.ask("before", "openai", once)
    openai.script(default={"do": "status", "status": 503})
    for number in range(1, 6):
        story.ask(f"failure {number}", "deepseek", to_next("overloaded"))
    opened = time.monotonic()
    touched = openai.stats()["requests"]
    for _ in range(3):
        story.ask("the breaker is open", "deepseek", ["deepseek:answered"], degraded="openai:open")
    story.say(f"openai's counter: {touched} requests before, {openai.stats()['requests']} after these three.")
    openai.script(default={"do": "answer"})
    story.say("It is healthy again, and nobody tells the gateway.")
    # Open for 3 s, and up to a tenth longer, so that gateways do not come back in step.
    time.sleep(max(0.0, opened + 3.4 - time.monotonic()))
    story.ask("the probe", "openai", once)
    story.ask("closed again", "openai", once)

    story.step("Everything is down", "Nobody is left: the client gets one clear error, in OpenAI's envelope.")
    story.die(*story.fakes)
    nobody = [f"{name}:unreachable" for name in story.fakes]
    answer = story.ask("a plain request", None, nobody, status=503, asked={})
    if answer is not None:
        try:
            story.expect("error.code", "all_providers_failed", answer.error["code"])
            story.say(answer.raw.decode())
        except Exception as error_seen:
            story.fail("the error", "OpenAI's envelope", f"{error_seen!r} in {answer.raw[:300]!r}")
    tell_cost(story)
    try:
        story.support.assert_no_trap(story.gateway)
    except AssertionError as error_seen:
        story.fail("the gateway's log", "no trap, no key", error_seen)


def tell_cost(story: Story) -> None:
    """The bill of the whole story, from the access log alone."""
    story.step("What it cost", "Envoy's access log has one record per request: who was asked, who answered, tokens and cost.")
    try:
        story.support.wait_for(lambda: len(story.gateway.access_log()) >= story.asked, 5, "the records of all requests")
    except TimeoutError:
        pass
    records = story.gateway.access_log()
    story.expect("how many records there are", story.asked, len(records))
    bills: dict[str, list[Json]] = {}
    for record in records:
        for attempt in record["attempts"]:
            bills.setdefault(attempt["provider"], []).append(attempt)
    for provider, attempts in bills.items():
        billed = [attempt for attempt in attempts if "usage" in attempt]
        tokens = {kind: sum(attempt["usage"][kind] for attempt in billed) for kind in ("input", "output")}
        cost = sum((decimal.Decimal(attempt.get("cost_usd", "0")) for attempt in billed), decimal.Decimal(0))
        priced = f"{cost} USD" if all("cost_usd" in attempt for attempt in billed) else "unpriced"
        if any("unpriced_parts" in attempt for attempt in billed):
            priced = f"{priced} and parts without a price"
        story.say(
            f"{provider:<9} {len(attempts):>3} attempts, {len(billed):>2} billed: "
            f"{tokens['input']} tokens in, {tokens['output']} out, {priced if billed else 'nothing'}"
        )
    billed = [attempt for attempts in bills.values() for attempt in attempts if "usage" in attempt]
    reported = [attempt for attempt in billed if attempt["usage"]["source"] == "reported"]
    story.expect("how many bills are as the provider reported", len(billed), len(reported))
    if records:
        story.say(f"the first record: {json.dumps(records[0])}")


def run() -> int:
    started = time.monotonic()
    signals = Signals()
    try:
        print("Starting Envoy with Shunt, and three fake providers: openai, deepseek, shareai.", flush=True)
        with world(signals) as (fakes, gateway):
            print(f"Envoy listens on {gateway.url} (2 workers). Each line: what happened, the status, who answered,")
            print("the time, and the attempts behind it.", flush=True)
            story = Story(fakes, gateway)
            tell(story)
    except Stopped:
        print("\nInterrupted; everything is stopped.", file=sys.stderr)
        return 128 + (signals.received or signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    took = time.monotonic() - started
    if story.failures:
        print(f"\n{story.failures} expectations did NOT hold ({took:.0f} s).")
        return 1
    print(f"\nEvery step held ({story.steps} steps, {took:.0f} s). Nothing is left running.")
    print("To play with it yourself: make demo-up")
    return 0


def colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


# --- In the background


def up() -> int:
    """Starts `demo.py serve`, detached, and waits until it serves."""
    state = read_state()
    if state and is_ours(state["supervisor"]):
        print("The demo is up already.")
        print_help(state)
        return 0
    wanted = os.environ.get("SHUNT_PORT", "8080")
    if not wanted.isdigit() or not 0 < int(wanted) < 65536:
        print(f"SHUNT_PORT must be a port, and is {wanted!r}", file=sys.stderr)
        return 2
    port = int(wanted)
    if not is_free(port):
        who = holder(port) or "another program"
        print(f"Port {port} of 127.0.0.1 is taken by {who}.", file=sys.stderr)
        print(f"Choose another one:  SHUNT_PORT={free_near(port)} make demo-up", file=sys.stderr)
        return 1
    if state:
        down()  # What a killed supervisor left behind.
    STATE.parent.mkdir(exist_ok=True)
    with open(LOG, "wb") as log:
        server = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).resolve()), "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "SHUNT_PORT": str(port)},
        )
    deadline = time.monotonic() + 60
    try:
        while not (state := read_state()) or state["supervisor"]["pid"] != server.pid:
            if server.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.05)
    except BaseException as error:
        if server.poll() is None:
            server.terminate()
            server.wait(20)
        if isinstance(error, TimeoutError):
            print(f"The demo did not start:\n{LOG.read_text(errors='replace')[-4000:]}", file=sys.stderr)
            return 1
        raise
    with contextlib.suppress(BrokenPipeError):
        tell_up(state)
    return 0


def tell_up(state: Json) -> None:
    print("The demo is up, in the background.")
    for name, (api, control) in PORTS.items():
        taken = [at for at, now in zip((api, control), state["providers"][name].values()) if at != now]
        for at in taken:
            print(f"note: port {at} is taken by {holder(at) or 'another program'}; {name} got a free one")
    print_help(state)
    sys.stdout.flush()


def serve() -> int:
    """Owns the fakes and Envoy until SIGTERM; runs detached."""
    signals = Signals()
    try:
        with world(signals, int(os.environ["SHUNT_PORT"]), fixed=True) as (fakes, gateway):
            try:
                processes = {"envoy": identity(gateway.pid)}
                processes.update({name: identity(provider.process.pid) for name, provider in fakes.items()})
                state = {
                    "gateway": gateway.url,
                    "admin": f"http://127.0.0.1:{gateway.admin_port}",
                    "log": str(gateway.log_path),
                    "access_log": str(gateway.access_log_path),
                    "folder": str(gateway.folder),
                    "providers": {
                        name: {"port": provider.port, "control_port": provider.control_port}
                        for name, provider in fakes.items()
                    },
                    "supervisor": identity(os.getpid()),
                    "processes": processes,
                }
                temporary = STATE.with_suffix(".new")
                temporary.write_text(json.dumps(state, indent=2) + "\n")
                temporary.replace(STATE)
                while gateway.process.poll() is None:
                    time.sleep(0.5)
                print(f"Envoy ended with status {gateway.process.returncode}\n{gateway.log()[-4000:]}", flush=True)
                return 1
            finally:
                STATE.unlink(missing_ok=True)
    except Stopped:
        return 0


def down() -> int:
    """Ends what `up` started, and nothing else. Standard library only: it works without the environment."""
    state = read_state()
    if not state:
        print("The demo is not up: nothing to do.")
        return 0
    everything = {"supervisor": state["supervisor"], **state["processes"]}
    running = {name: process for name, process in everything.items() if is_ours(process)}
    if "supervisor" in running:
        # It ends the others.
        end({"supervisor": running["supervisor"]}, signal.SIGTERM, 15)
    left = {name: process for name, process in running.items() if is_ours(process)}
    if left and not end(left, signal.SIGTERM, 10):
        end(left, signal.SIGKILL, 5)
    folder = pathlib.Path(state["folder"])
    if folder.name.startswith("shunt-gateway-"):
        shutil.rmtree(folder, ignore_errors=True)
    stuck = {name: process for name, process in running.items() if is_ours(process)}
    if stuck:
        print(f"Could not stop {tell_processes(stuck)}", file=sys.stderr)
        return 1
    STATE.unlink(missing_ok=True)
    gone = [name for name in everything if name not in running]
    if running:
        print(f"Stopped {tell_processes(running)}.")
    if gone:
        print(f"No longer running: {', '.join(gone)}.")
    return 0


def tell_processes(processes: dict[str, Json]) -> str:
    return ", ".join(f"{name} (pid {process['pid']})" for name, process in processes.items())


def end(processes: dict[str, Json], number: int, seconds: float) -> bool:
    """Sends a signal to those that are still ours; whether all are gone in time."""
    for process in processes.values():
        if is_ours(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process["pid"], number)
    deadline = time.monotonic() + seconds
    while any(is_ours(process) for process in processes.values()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def identity(pid: int) -> Json:
    """A process, told from every later one that gets its number: by its command and the time of its start."""
    return {"pid": pid, "is": describe(pid)}


def is_ours(process: Json) -> bool:
    return bool(process["is"]) and describe(process["pid"]) == process["is"]


def describe(pid: int) -> Optional[str]:
    """Start time and command of a process, or nothing if it is gone (or dead and not yet reaped)."""
    folder = pathlib.Path(f"/proc/{pid}")
    if pathlib.Path("/proc/self/stat").exists():
        try:
            # The command in parentheses may contain anything; the start is the 20th field behind it.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return None
        return f"{fields[19]} {command}" if command and fields[0] not in "ZX" else None
    seen = subprocess.run(
        ["ps", "-p", str(pid), "-o", "stat=", "-o", "lstart=", "-o", "command="],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    state, _, rest = seen.stdout.strip().partition(" ")
    return rest.strip() if rest and not state.startswith("Z") else None


def read_state() -> Optional[Json]:
    try:
        state: Json = json.loads(STATE.read_text())
        return state if {"supervisor", "processes", "folder"} <= set(state) else None
    except (OSError, ValueError):
        return None


def is_free(port: int) -> bool:
    """Whether nobody listens there: Envoy itself would share the port of another Envoy."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def free_near(port: int) -> int:
    return next((at for at in range(port + 1, min(port + 100, 65536)) if is_free(at)), 18080)


def holder(port: int) -> Optional[str]:
    """The name and number of the process that listens on a port, as far as we may know."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    if inodes:
        for link in glob.glob("/proc/[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if os.readlink(link) in inodes:
                    pid = link.split("/")[2]
                    return f"{pathlib.Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    elif shutil.which("lsof"):
        found = subprocess.run(["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"], capture_output=True, text=True)
        told = {line[0]: line[1:] for line in found.stdout.splitlines()[:2] if line}
        if {"p", "c"} <= set(told):
            return f"{told['c']} (pid {told['p']})"
    return None


def print_help(state: Json) -> None:
    url = state["gateway"]
    control = {name: f"127.0.0.1:{ports['control_port']}" for name, ports in state["providers"].items()}
    body = """'{"model": "assistant", "messages": [{"role": "user", "content": "hello"}]%s}'"""
    print(
        f"""
  A request (see the x-shunt-* headers: who answered, and the attempts behind it):
    curl -si {url}/v1/chat/completions -H 'content-type: application/json' -d {body % ""}
  A stream:
    curl -siN {url}/v1/chat/completions -H 'content-type: application/json' -d {body % ', "stream": true'}

  Break the first provider, then ask again: another one answers.
    curl -s {control["openai"]}/script -d '{{"default": {{"do": "status", "status": 503}}}}'   # it answers 503
    curl -s {control["openai"]}/script -d '{{"default": {{"do": "cut", "after": 0}}}}'         # it cuts before the first token
    curl -s {control["openai"]}/script -d '{{"default": {{"do": "silent"}}}}'                  # it says nothing: after 2 s (a stream) or 10 s the next one answers
    curl -s {control["openai"]}/listen -d '{{"on": false}}'                                  # it is dead
    curl -s -X POST {control["openai"]}/reset                                              # it is well again; after five failures in a row its breaker is open for 3 s
  What it has seen (its own key, model and path):  curl -s {control["openai"]}/log
  The other two:  deepseek at {control["deepseek"]}, shareai at {control["shareai"]}. All behaviours: tests/fake/README.md

  Gateway log: {state["log"]}   access log: {state["access_log"]}   admin: {state["admin"]}
  Stop it:  make demo-down"""
    )


if __name__ == "__main__":
    sys.exit(main())
