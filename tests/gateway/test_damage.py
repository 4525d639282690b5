"""Damaged bytes: the first provider's answer was damaged on its way, the second provider answers well with another text.

Every request ends with the whole text of one of them, with a typed error, or with a broken connection. It never ends well with a hole, with
a mix of both, or with what a strict client cannot read. tests/damage.rs does the same below the host.

A failure prints the seed, the number of the case and the damaged bytes; `SHUNT_DAMAGE=seed` runs that seed again, and `SHUNT_DAMAGE=seed:number`
only that case. `make soak` runs ten thousand cases of a new seed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import random
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn, Optional

import pytest

from support import CHAT, CLIENT_KEY, Gateway, Json, Upstream, World

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
SOAK = os.environ.get("SHUNT_SOAK") == "1"
_asked, _, _only = os.environ.get("SHUNT_DAMAGE", "").partition(":")
SEED = int(_asked or (random.randrange(1_000_000) if SOAK else 1))
ONLY = int(_only) if _only else None
#: How many requests are under way at a time.
CALLERS = 24

KINDS = ["chat", "tools", "completions", "responses", "anthropic", "anthropic_tools"]
#: How the answer is asked for. `told`: a live stream of a route with `"on_break": "event"`.
FORMS = ["live", "complete", "whole", "told"]
#: Cases of each kind, spread over the forms.
CASES = 10_000 // len(KINDS) + 1 if SOAK else 320

#: The pieces of the damaged answer's text, and the other provider's text.
PIECES = ["The dose ", "is ", "NOT ", "safe, \u00e9t\u00e9 \U0001f600", "."]
OTHER = ["Take ", "two, ", "slowly", "!"]
#: The calls of both: id, name, and the pieces of the arguments.
Call = tuple[str, str, list[str]]
CALLS: list[Call] = [("call_a", "dose", ['{"mg"', ": 5, ", '"of": "x"}']), ("call_b", "stop", ['{"now":', " true", "}"])]
OTHER_CALLS: list[Call] = [("call_x", "weigh", ['{"kg": ', "[1, 2]}"])]


def dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# Good answers


def stream_of(kind: str, pieces: list[str], calls: list[Call]) -> str:
    if kind == "responses":
        return response_stream(pieces)
    if kind.startswith("anthropic"):
        return message_stream(pieces, calls if kind.endswith("tools") else [])
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    name = "text_completion" if kind == "completions" else "chat.completion.chunk"

    def chunk(choices: list[Json], **more: Any) -> str:
        return f"data: {dumped({'id': 'c', 'object': name, 'created': 1, 'model': 'm', 'choices': choices, **more})}\n\n"

    def choice(delta: Any, finish: Optional[str] = None) -> list[Json]:
        said = {"text": delta} if kind == "completions" else {"delta": delta}
        return [{"index": 0, **said, "logprobs": None, "finish_reason": finish}]

    if kind == "completions":
        return "".join(chunk(choice(text)) for text in pieces) + chunk(choice("", "stop")) + "data: [DONE]\n\n"
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    if kind == "chat":
        deltas += [{"content": text} for text in pieces]
    else:
        # The first call begins together with the role, as OpenAI's own do.
        for index, (identity, tool, arguments) in enumerate(calls):
            begin = {"index": index, "id": identity, "type": "function", "function": {"name": tool, "arguments": ""}}
            if index == 0:
                deltas[0] = {"role": "assistant", "content": None, "tool_calls": [begin]}
            else:
                deltas.append({"tool_calls": [begin]})
            deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in arguments]
    chunks = [chunk(choice(delta)) for delta in deltas]
    chunks.insert(3, ": waiting\n\n")
    chunks.append(chunk(choice({}, "stop" if kind == "chat" else "tool_calls")))
    return "".join(chunks) + chunk([], usage=usage) + "data: [DONE]\n\n"


def event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {dumped({'type': kind, **fields})}\n\n"


def response_stream(pieces: list[str]) -> str:
    response: Json = {"id": "r", "object": "response", "status": "in_progress", "output": []}
    events = [event("response.created", sequence_number=0, response=response)]
    place = {"item_id": "i", "output_index": 0, "content_index": 0}
    events += [event("response.output_text.delta", sequence_number=at, **place, delta=text) for at, text in enumerate(pieces, 1)]
    done = {**response, "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}}
    return "".join(events) + event("response.completed", sequence_number=len(pieces) + 1, response=done)


def message_stream(pieces: list[str], calls: list[Call]) -> str:
    message: Json = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}}
    events = [event("message_start", message=message)]
    blocks: list[tuple[Json, str, str, list[str]]] = [({"type": "text", "text": ""}, "text_delta", "text", pieces)]
    if calls:
        blocks = [({"type": "tool_use", "id": one, "name": name, "input": {}}, "input_json_delta", "partial_json", parts) for one, name, parts in calls]
    for index, (block, kind, key, parts) in enumerate(blocks):
        events.append(event("content_block_start", index=index, content_block=block) + event("ping"))
        events += [event("content_block_delta", index=index, delta={"type": kind, key: part}) for part in parts]
        events.append(event("content_block_stop", index=index))
    stop = {"stop_reason": "tool_use" if calls else "end_turn"}
    return "".join(events) + event("message_delta", delta=stop, usage={"output_tokens": 5}) + event("message_stop")


def whole_of(kind: str, pieces: list[str], calls: list[Call]) -> str:
    text = "".join(pieces)
    joined = [(identity, name, "".join(arguments)) for identity, name, arguments in calls]
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    counted = {"input_tokens": 3, "output_tokens": 5}
    if kind == "responses":
        part = {"type": "output_text", "text": text, "annotations": []}
        item = {"type": "message", "id": "i", "role": "assistant", "status": "completed", "content": [part]}
        return dumped({"id": "r", "object": "response", "status": "completed", "error": None, "output": [item], "usage": {**counted, "total_tokens": 8}})
    if kind.startswith("anthropic"):
        content: list[Json] = [{"type": "text", "text": text}]
        if kind.endswith("tools"):
            content = [{"type": "tool_use", "id": one, "name": name, "input": json.loads(arguments)} for one, name, arguments in joined]
        stop = "tool_use" if kind.endswith("tools") else "end_turn"
        return dumped({"id": "m", "type": "message", "role": "assistant", "model": "c", "content": content, "stop_reason": stop, "usage": counted})
    choice: Json = {"index": 0, "text": text}
    if kind != "completions":
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        if kind == "tools":
            functions = [(one, {"name": name, "arguments": arguments}) for one, name, arguments in joined]
            message["content"] = None
            message["tool_calls"] = [{"id": one, "type": "function", "function": function} for one, function in functions]
        choice = {"index": 0, "message": message}
    choice |= {"logprobs": None, "finish_reason": "tool_calls" if kind == "tools" else "stop"}
    name = "text_completion" if kind == "completions" else "chat.completion"
    return dumped({"id": "c", "object": name, "created": 1, "model": "m", "choices": [choice], "usage": usage})


def answer_of(kind: str, form: str, other: bool) -> str:
    """A good answer of one of the providers."""
    make = whole_of if form == "whole" else stream_of
    return make(kind, OTHER, OTHER_CALLS) if other else make(kind, PIECES, CALLS)


# Damage

STRUCTURE = b'{}[]":,\n'


def structure(text: bytes | bytearray) -> list[int]:
    """The places of an answer's structure: what stands outside the texts, and the quotes around them."""
    places, inside, escaped = [], False, False
    for at, byte in enumerate(text):
        is_quote = byte == 0x22 and not escaped
        if (is_quote or not inside) and byte in STRUCTURE:
            places.append(at)
        escaped = inside and byte == 0x5C and not escaped
        inside ^= is_quote
    return places


def damage(text: str, chance: random.Random) -> bytes:
    """Damages an answer at one to three places, never a letter of its text."""
    damaged = bytearray(text.encode())
    places = structure(damaged)
    found = {}
    for _ in range(chance.randint(1, 3)):
        how = chance.choice(["delete", "delete", "double", "replace", "control", "blank"])
        found[chance.choice(places) if how in ("delete", "double", "replace") else chance.randrange(len(damaged))] = how
    # From the end to the beginning, so that the places stay right.
    for at, how in sorted(found.items(), reverse=True):
        if how == "delete":
            del damaged[at]
        elif how == "double":
            damaged.insert(at, damaged[at])
        elif how == "replace":
            damaged[at] = chance.choice(STRUCTURE)
        elif how == "control":
            damaged.insert(at, chance.randrange(0x20))
        else:
            damaged[at:at] = b"\n\n"
    return bytes(damaged)


@dataclass(frozen=True)
class Case:
    kind: str
    number: int

    @property
    def form(self) -> str:
        return FORMS[self.number % len(FORMS)]

    def chance(self) -> random.Random:
        return random.Random(f"{SEED}/{self.kind}/{self.number}")

    def damaged(self) -> bytes:
        """What the first provider sends. Case 0 to 3 are not damaged: they show that the answers as such are good."""
        good = answer_of(self.kind, self.form, other=False)
        return good.encode() if self.number < len(FORMS) else damage(good, self.chance())

    def whole_until(self) -> int:
        """How many bytes of a live stream reach the client before the damage, if that is more than half of the stream; else 0."""
        if self.form not in ("live", "told"):
            return 0
        good, damaged = answer_of(self.kind, self.form, other=False).encode(), self.damaged()
        same = next((place for place, (one, two) in enumerate(zip(good, damaged)) if one != two), 0)
        return damaged.rfind(b"\n\n", 0, same) + 2 if same > len(good) // 2 else 0

    def path(self) -> str:
        return {"completions": COMPLETIONS, "responses": RESPONSES}.get(self.kind, CHAT)

    def request(self) -> bytes:
        text = f"case {self.number}."
        body: Json = {"model": "told" if self.form == "told" else "assistant"}
        if self.path() == CHAT:
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body["prompt" if self.path() == COMPLETIONS else "input"] = text
        if self.form != "whole":
            body["stream"] = True
        content = dumped(body).encode()
        lines = [f"POST {self.path()} HTTP/1.1", "host: gateway", f"authorization: Bearer {CLIENT_KEY}", "content-type: application/json"]
        if self.form == "complete":
            lines.append("x-shunt-stream: complete")
        return "\r\n".join([*lines, f"content-length: {len(content)}", "", ""]).encode() + content


# The providers


@dataclass
class Provider:
    """Answers each request by the case that its body names. `other`: the one that answers well."""

    kind: str
    other: bool
    #: Set for a case's number when its client has the head of a response.
    begun: dict[int, asyncio.Event]
    answered: int = 0
    sockets: list[socket.socket] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                assert length is not None, head
                body = await reader.readexactly(int(length[1]))
                number = re.search(rb"case (\d+)\.", body)
                assert number is not None, body
                self.answered += 1
                await self.answer(Case(self.kind, int(number[1])), writer)
        writer.close()

    async def answer(self, case: Case, writer: asyncio.StreamWriter) -> None:
        content = answer_of(self.kind, case.form, True).encode() if self.other else case.damaged()
        kind = b"application/json" if case.form == "whole" else b"text/event-stream"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind)
        chance = case.chance()
        # What is damaged late arrives late: the client has the beginning by then, however busy the machine is.
        whole = 0 if self.other else case.whole_until()
        while content:
            size = chance.randint(1, 400)
            if 0 < whole <= size:
                size = whole
            writer.write(b"%x\r\n%b\r\n" % (len(content[:size]), content[:size]))
            content = content[size:]
            await writer.drain()
            await asyncio.sleep(0)
            if whole == size:
                await self.begun[case.number].wait()
            whole -= size
        writer.write(b"0\r\n\r\n")
        await writer.drain()


# The client


class Fault(Exception):
    """What must not happen."""


@dataclass
class Got:
    """What a client has received."""

    status: int = 0
    body: bytes = b""
    provider: str = ""
    broken: bool = False


class Caller:
    """A client that sends one request after the other on its connection, as long as that lasts."""

    def __init__(self, port: int, begun: dict[int, asyncio.Event]) -> None:
        self.port = port
        self.begun = begun
        self.connection: Optional[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = None

    async def ask(self, case: Case) -> Got:
        if self.connection is None:
            self.connection = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.connection
        got = Got()
        try:
            writer.write(case.request())
            await self.read(reader, got, self.begun[case.number])
        except (asyncio.IncompleteReadError, ConnectionError):
            got.broken = True
            self.close()
        return got

    @staticmethod
    async def read(reader: asyncio.StreamReader, got: Got, begun: asyncio.Event) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        begun.set()
        headers = dict(line.split(": ", 1) for line in lines if line)
        got.status, got.provider = int(first.split(" ")[1]), headers.get("x-shunt-provider", "")
        if "content-length" in headers:
            got.body = await reader.readexactly(int(headers["content-length"]))
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            got.body += (await reader.readexactly(size + 2))[:size]
        await reader.readexactly(2)

    def close(self) -> None:
        if self.connection is not None:
            self.connection[1].close()
            self.connection = None


def strict(text: str) -> Any:
    """JSON as the strictest client reads it."""

    def refuse(constant: str) -> NoReturn:
        raise Fault(f"{constant} is no JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
        dumped(value).encode()
    except ValueError as error:
        raise Fault(f"a strict client cannot read {text!r}: {error}") from None
    return value


def must(holds: bool, what: str, seen: Any) -> None:
    if not holds:
        raise Fault(f"{what}: {dumped(seen)}")


def is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


@dataclass
class Said:
    """What an answer says, as its client puts it together."""

    text: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    #: The finish reason.
    finish: str = ""
    ended: bool = False
    error: bool = False

    def stream(self, kind: str, raw: bytes) -> None:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise Fault(f"no UTF-8: {error}") from None
        for block in re.split("\n\n", text.replace("\r\n", "\n").replace("\r", "\n")):
            lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
            data = "\n".join(lines)
            if data == "[DONE]":
                must(not self.ended, "a second end", data)
                self.ended = True
            elif data:
                # What follows the end of a response may be damaged, and is told.
                must(not self.ended or kind == "responses", "something after the end", data)
                self.event(kind, strict(data))

    def event(self, kind: str, event: Any) -> None:
        must(isinstance(event, dict), "an event that is no object", event)
        if isinstance(event.get("error"), dict) or event.get("type") in ("error", "response.failed"):
            self.error = True
            return
        must(not self.error, "something after the error", event)
        if kind == "responses":
            must(isinstance(event.get("type"), str), "an event without a type", event)
            if event["type"] == "response.output_text.delta":
                must(isinstance(event.get("delta"), str), "a delta without a text", event)
                self.text += event["delta"]
            self.ended |= event["type"] == "response.completed"
            return
        must(isinstance(event.get("choices"), list), "an event without choices", event)
        for choice in event["choices"]:
            must(isinstance(choice, dict) and is_text(choice.get("finish_reason")), "no choice", event)
            self.finish = choice.get("finish_reason") or self.finish
            if kind == "completions":
                must(isinstance(choice.get("text"), str), "a choice without a text", event)
                self.text += choice["text"]
            else:
                must(isinstance(choice.get("delta"), dict), "a choice without a delta", event)
                self.message(choice["delta"])

    def message(self, message: Json) -> None:
        must(is_text(message.get("content")), "content that is no text", message)
        self.text += message.get("content") or ""
        for place, call in enumerate(message.get("tool_calls") or []):
            must(isinstance(call, dict) and isinstance(call.get("function", {}), dict), "no call", message)
            function = call.get("function", {})
            index = call.get("index", place)
            must(isinstance(index, int), "a call without a number", message)
            known = self.calls.setdefault(index, ["", "", ""])
            for at, part in enumerate((call.get("id"), function.get("name"), function.get("arguments"))):
                must(is_text(part), "a call's part that is no text", message)
                known[at] += part or ""

    def whole(self, kind: str, body: Any) -> None:
        must(isinstance(body, dict), "no object", body)
        if kind == "responses":
            must(isinstance(body.get("output"), list), "no output", body)
            parts = [part for item in body["output"] for part in item.get("content") or []]
            self.text = "".join(part["text"] for part in parts if part["type"] == "output_text")
            self.ended = body.get("status") == "completed"
            return
        must(isinstance(body.get("choices"), list), "no choices", body)
        for choice in body["choices"]:
            must(is_text(choice.get("finish_reason")), "no choice", body)
            self.finish = choice.get("finish_reason") or ""
            if kind == "completions":
                must(isinstance(choice.get("text"), str), "a choice without a text", body)
                self.text += choice["text"]
            else:
                must(isinstance(choice.get("message"), dict), "a choice without a message", body)
                self.message(choice["message"])
        self.ended = True


def plain(text: str) -> str:
    """A text without the control characters that were put into it."""
    return "".join(letter for letter in text if ord(letter) >= 0x20)


def arguments(text: str) -> Any:
    """A call's arguments without what was put into them; half of them as they are, without blanks."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {plain(key): cleaned(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [cleaned(inner) for inner in value]
        return plain(value) if isinstance(value, str) else value

    text = plain(text)
    try:
        return cleaned(json.loads(text))
    except ValueError:
        return text.replace(" ", "")


def is_whole(said: Said, kind: str, other: bool) -> bool:
    if kind.endswith("tools"):
        wanted = [(identity, name, json.loads("".join(parts))) for identity, name, parts in (OTHER_CALLS if other else CALLS)]
        found = [(one, name, arguments(parts)) for one, name, parts in said.calls.values()]
        return found == wanted and not plain(said.text)
    return plain(said.text) == "".join(OTHER if other else PIECES) and not said.calls


def is_beginning(said: Said, kind: str, other: bool) -> bool:
    """Whether a stream that broke off has no hole, either, in what it said before."""
    if not kind.endswith("tools"):
        return "".join(OTHER if other else PIECES).startswith(plain(said.text))
    calls = OTHER_CALLS if other else CALLS
    if len(said.calls) > len(calls):
        return False
    for place, ((identity, name, parts), found) in enumerate(zip(calls, said.calls.values())):
        whole = "".join(parts).replace(" ", "")
        has = plain(found[2]).replace(" ", "")
        if (found[0], found[1]) != (identity, name) or not whole.startswith(has):
            return False
        if place + 1 < len(said.calls) and has != whole:
            return False
    return True


def check(case: Case, got: Got) -> str:
    """Raises `Fault` if a request ended as it must not. Returns how it ended."""
    said = Said()
    if got.status != 200:
        if got.broken:
            return "broken"
        told = strict(got.body.decode()).get("error")
        must(isinstance(told, dict) and set(told) == {"message", "type", "param", "code"}, "an error without its envelope", told)
        return "error"
    other = got.provider == "deepseek"
    if case.form == "whole":
        if got.broken:
            return "broken"
        said.whole(case.kind, strict(got.body.decode()))
    else:
        said.stream(case.kind, got.body if not got.broken else got.body[: got.body.rfind(b"\n\n") + 2])
    if got.broken or said.error:
        # What a response was told after its end is an error for whoever reads on.
        must(not said.ended or case.kind == "responses", "a failure that looks like an end", got.body.decode())
        must(is_beginning(said, case.kind, other), "a hole before the failure", got.body.decode())
        return "broken" if got.broken else "error event"
    finish = "" if case.kind == "responses" else "tool_calls" if case.kind.endswith("tools") else "stop"
    must(said.ended and said.finish == finish, "no end", got.body.decode())
    must(is_whole(said, case.kind, other), "a hole", got.body.decode())
    return "the other's" if other else "its own"


def settings(kind: str) -> Json:
    """Whoever fails is asked again at once, and nothing that one answer says is held against the next."""
    path = Case(kind, 0).path()
    change: Json = {"models": {"told": "m"}, **({"dialect": "anthropic"} if kind.startswith("anthropic") else {})}
    return {
        "providers": {"openai": change, "deepseek": {"models": {"told": "m"}}},
        "routes": [
            {"name": model, "match": {"path": path, "model": model}, "providers": ["openai", "deepseek"], "stream": stream}
            for model, stream in (("told", {"on_break": "event"}), ("assistant", {}))
        ],
        "breaker": {"consecutive_failures": 65535, "error_rate": 1, "minimum_requests": 1_000_000},
        "limits": {"first_token": "10s", "answer": "20s"},
    }


async def run(gateway: Gateway, providers: list[Provider], cases: list[Case], begun: dict[int, asyncio.Event]) -> tuple[collections.Counter[str], list[str]]:
    """Asks for all cases, many at a time. Returns how often each end was met, and the faults."""
    servers = [await asyncio.start_server(provider.serve, sock=provider.sockets[0]) for provider in providers]
    ends: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    waiting = iter(cases)

    async def call() -> None:
        caller = Caller(gateway.port, begun)
        for case in waiting:
            try:
                got = await asyncio.wait_for(caller.ask(case), 30)
                ends[f"{case.form}: {check(case, got)}"] += 1
            except (Fault, asyncio.TimeoutError) as fault:
                again = f"SHUNT_DAMAGE={SEED}:{case.number} pytest tests/gateway/test_damage.py -k 'damaged and {case.kind}-'"
                faults.append(f"{case}, {case.form}: {type(fault).__name__} {fault}\nagain: {again}\nof {case.damaged()!r}")
                caller.close()
        caller.close()

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    for server in servers:
        server.close()
    return ends, faults


@pytest.mark.parametrize("kind", KINDS, ids=[f"{kind}-" for kind in KINDS])
def test_a_damaged_answer_ends_whole_with_an_error_or_broken(world: World, kind: str) -> None:
    # The second provider speaks OpenAI's format in any case.
    begun: dict[int, asyncio.Event] = collections.defaultdict(asyncio.Event)
    speaks = {"anthropic": "chat", "anthropic_tools": "tools"}.get(kind, kind)
    providers = [Provider(kind, False, begun), Provider(speaks, True, begun)]
    for provider in providers:
        provider.sockets.append(socket.create_server(("127.0.0.1", 0), backlog=256))
    upstreams = {name: Upstream(provider.sockets[0].getsockname()[1]) for name, provider in zip(("openai", "deepseek"), providers)}
    gateway = world.gateway(settings(kind), upstreams, workers=2)
    cases = [Case(kind, number) for number in range(CASES)] if ONLY is None else [Case(kind, ONLY)]
    began = time.monotonic()
    ends, faults = asyncio.run(run(gateway, providers, cases, begun))
    print(f"seed {SEED}, {kind}, {len(cases) / (time.monotonic() - began):.0f} cases a second: {dict(sorted(ends.items()))}")
    assert not faults, f"{len(faults)} faults of {len(cases)} with the seed {SEED}\n\n" + "\n\n".join(faults[:10])
    # Each was asked of the first provider, and some had to go on to the second.
    assert providers[0].answered >= len(cases)
    if ONLY is None:
        for form in FORMS:
            assert ends[f"{form}: its own"], ends
        # A live stream on APISIX moves on by its head alone.
        assert ends["complete: the other's"] and ends["whole: the other's"], ends
        assert ends["live: error event"] and ends["told: error event"], ends
