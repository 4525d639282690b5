"""The fault vocabulary: every way in which the provider can behave.

Each behaviour is a generator of actions. Its keyword-only parameters *are* the
parameters of the step with the same name (a trailing underscore is dropped,
for names that Python keeps for itself), their annotations are what
``POST /script`` checks, and their defaults are the documented defaults. A
misspelt parameter is refused, because a test whose fault never happens passes
for the wrong reason.
"""

from __future__ import annotations

import inspect
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import (
    Any,
    Callable,
    Literal,
    Optional,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from actions import (
    Action,
    Actions,
    AwaitRelease,
    Data,
    End,
    Fin,
    Head,
    Headers,
    Raw,
    Reported,
    Reset,
    Sleep,
)
from documents import Ask, Document, Reply, ToolCall, encode, error_envelope

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
PATIENCE = 600.0  # how long a silent provider stays silent before it closes
SHORTEST_BEAT = 0.001  # keeps an endless behaviour with "gap": 0 from spinning

HeaderValue = Union[str, list[str]]


class BadStep(ValueError):
    """A step of a script that cannot be played."""


@dataclass(frozen=True)
class Turn:
    """A request together with the parameters that every step may have."""

    ask: Ask
    text: str
    chunks: int = 5
    gap: float = 0.0
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)

    def head(
        self,
        content_type: str,
        length: Optional[int] = None,
        status: int = 200,
        extra: Iterable[tuple[str, str]] = (),
    ) -> Head:
        """Response headers, with those of the step replacing any of ours."""
        headers: Headers = [
            ("content-type", content_type),
            ("x-request-id", f"req_{self.ask.provider}_{self.ask.n}"),
            *extra,
        ]
        replaced = {name.lower() for name in self.headers}
        headers = [(name, value) for name, value in headers if name not in replaced]
        for name, value in self.headers.items():
            values = value if isinstance(value, list) else [value]
            headers += [(name, one) for one in values]
        return Head(status, headers, length)

    def reply(self, **changes: Any) -> Reply:
        """The answer this turn would give, with some parts changed."""
        parts: dict[str, Any] = {"text": self.text, "chunks": self.chunks, **changes}
        return Reply(self.ask, **parts)


Behaviour = Callable[..., Actions]


@dataclass(frozen=True)
class Entry:
    """A behaviour as registered: its function and what it accepts."""

    function: Behaviour
    before_body: bool
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """A step that has been checked and can be played any number of times."""

    spec: dict[str, Any]
    entry: Entry
    parameters: dict[str, Any]
    common: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.spec["do"])

    @property
    def before_body(self) -> bool:
        """Whether this step acts as soon as the request headers are in."""
        return self.entry.before_body

    def actions(self, ask: Ask) -> Actions:
        """Everything to be done in answer to ``ask``, computed as it is needed."""
        common = dict(self.common)
        delay = common.pop("delay", 0)
        if delay:
            yield Sleep(delay)
        if "text" not in common:
            common["text"] = _default_text(ask, common.get("chunks", Turn.chunks))
        yield from self.entry.function(Turn(ask, **common), **self.parameters)


COMMON: Mapping[str, Any] = {
    "delay": float,
    "headers": dict[str, HeaderValue],
    "text": str,
    "chunks": int,
    "gap": float,
}

REGISTRY: dict[str, Entry] = {}


def behaviour(function: Behaviour) -> Behaviour:
    """Make a generator function available as the step of the same name."""
    return _register(function, before_body=False)


def behaviour_before_body(function: Behaviour) -> Behaviour:
    """The same for one that does not wait for the request body."""
    return _register(function, before_body=True)


def _register(function: Behaviour, before_body: bool) -> Behaviour:
    hints = get_type_hints(function)
    parameters = {
        name: hints[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    REGISTRY[function.__name__] = Entry(function, before_body, parameters)
    return function


def parse_step(spec: Any) -> Step:
    """Check a step as it came from a script."""
    if not isinstance(spec, dict):
        raise BadStep(f"a step must be an object, not {spec!r}")
    name = spec.get("do")
    entry = REGISTRY.get(name) if isinstance(name, str) else None
    if entry is None:
        raise BadStep(f"unknown behaviour {name!r}")
    parameters: dict[str, Any] = {}
    common: dict[str, Any] = {}
    for key, value in spec.items():
        if key == "do":
            continue
        own = next(
            (name for name in (key, f"{key}_") if name in entry.parameters), None
        )
        where = f"{name}.{key}"
        if own is not None:
            parameters[own] = _fit(entry.parameters[own], value, where)
        elif key in COMMON:
            common[key] = _fit(COMMON[key], value, where)
        else:
            raise BadStep(f"unknown parameter {where}")
    return Step(spec, entry, parameters, common)


def _fit(hint: Any, value: Any, where: str) -> Any:
    """Return ``value`` as the annotation ``hint`` wants it, or refuse it."""
    if hint is Any:
        return value
    if hint is Step:
        return parse_step(value)
    origin, options = get_origin(hint), get_args(hint)
    if origin is Union:
        for option in options:
            try:
                return _fit(option, value, where)
            except BadStep:
                continue
    elif origin is Literal:
        if value in options:
            return value
    elif origin is dict and isinstance(value, dict):
        return {key: _fit(options[1], one, where) for key, one in value.items()}
    elif origin is list and isinstance(value, list):
        return [_fit(options[0], one, where) for one in value]
    elif hint in (int, float):
        numeric = (int, float) if hint is float else int
        if isinstance(value, numeric) and not isinstance(value, bool) and value >= 0:
            return value
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise BadStep(f"{where} cannot be {value!r}")


def _default_text(ask: Ask, chunks: int) -> str:
    """A greeting, long enough to be cut into as many chunks as were asked for."""
    greeting = f"Hello from {ask.provider}."
    while len(greeting) < chunks:
        greeting += f" {greeting}"
    return greeting


# Building blocks. -----------------------------------------------------------


def event(document: Document, eol: bytes = b"\n") -> bytes:
    """One server-sent event."""
    return b"data: " + encode(document) + eol * 2


def done_event(eol: bytes = b"\n") -> bytes:
    """The event with which OpenAI ends a stream."""
    return b"data: [DONE]" + eol * 2


def say(turn: Turn, chunks: Iterable[Document], eol: bytes = b"\n") -> Actions:
    """Send stream events, each followed by the turn's gap."""
    for chunk in chunks:
        yield Data(event(chunk, eol))
        if turn.gap:
            yield Sleep(turn.gap)


def begin(turn: Turn, reply: Reply, after: int) -> Actions:
    """A stream up to and including its ``after``-th content chunk."""
    yield turn.head(EVENT_STREAM)
    yield from say(turn, reply.opening())
    yield from say(turn, reply.deltas()[:after])


def conclude(
    turn: Turn, reply: Reply, after: int = 0, eol: bytes = b"\n", done: bool = True
) -> Actions:
    """The rest of a stream whose first ``after`` content chunks were sent."""
    yield from say(turn, reply.deltas()[after:], eol)
    yield from say(turn, [reply.closing()], eol)
    if reply.ask.include_usage:
        yield Data(event(reply.usage_chunk(), eol))
        yield Reported(reply.usage)
    if done:
        yield Data(done_event(eol))
    yield End()


def as_stream(
    turn: Turn, reply: Reply, eol: bytes = b"\n", done: bool = True
) -> Actions:
    """A whole stream."""
    yield turn.head(EVENT_STREAM)
    yield from say(turn, reply.opening(), eol)
    yield from conclude(turn, reply, eol=eol, done=done)


def as_document(turn: Turn, reply: Reply) -> Actions:
    """The answer as one JSON document."""
    payload = encode(reply.whole())
    yield turn.head(JSON, len(payload))
    yield Data(payload)
    yield End()
    yield Reported(reply.usage)


def as_asked(turn: Turn, reply: Reply) -> Actions:
    """The answer in the form in which the client wants it."""
    return as_stream(turn, reply) if turn.ask.stream else as_document(turn, reply)


def whole_body(
    turn: Turn,
    payload: bytes,
    content_type: str = JSON,
    status: int = 200,
    extra: Iterable[tuple[str, str]] = (),
) -> Actions:
    """A complete response with the given body."""
    yield turn.head(content_type, len(payload), status, extra)
    if payload:
        yield Data(payload)
    yield End()


def silence(seconds: float) -> Actions:
    """Say nothing until the peer leaves; close when it never does."""
    yield Sleep(seconds)
    yield Fin()


def in_pieces(actions: Actions, size: int, gap: float) -> Actions:
    """The same actions with all data cut into pieces of at most ``size`` bytes."""
    for action in actions:
        if not isinstance(action, Data):
            yield action
            continue
        for start in range(0, len(action.payload), size):
            yield Data(action.payload[start : start + size])
            yield Sleep(gap)


def compressed(actions: Actions) -> Actions:
    """The same actions with the body gzipped, flushed after every event."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    for action in actions:
        if isinstance(action, Head):
            headers = [*action.headers, ("content-encoding", "gzip")]
            yield Head(action.status, headers)
        elif isinstance(action, Data):
            packed = packer.compress(action.payload)
            yield Data(packed + packer.flush(zlib.Z_SYNC_FLUSH))
        elif isinstance(action, End):
            yield Data(packer.flush())
            yield action
        else:
            yield action


def without_head(actions: Actions) -> Actions:
    """The same actions for a response whose headers have already been sent."""
    return (action for action in actions if not isinstance(action, Head))


def beats(action: Action, gap: float, seconds: Optional[float]) -> Iterator[Action]:
    """Repeat an action every ``gap`` seconds, for ``seconds`` or for ever."""
    gap = max(gap, SHORTEST_BEAT)
    spent = 0.0
    while seconds is None or spent < seconds:
        yield action
        yield Sleep(gap)
        spent += gap


# Good answers. --------------------------------------------------------------


@behaviour
def answer(turn: Turn) -> Actions:
    """A correct answer."""
    return as_asked(turn, turn.reply())


@behaviour
def tool_call(
    turn: Turn, *, name: Optional[str] = None, arguments: str = '{"city":"Paris"}'
) -> Actions:
    """A call of the first tool the request offers, or of ``name``."""
    tool = ToolCall(name or _first_tool(turn.ask), arguments)
    return as_asked(turn, turn.reply(text="", tool=tool, finish_reason="tool_calls"))


def _first_tool(ask: Ask) -> str:
    try:
        return str(ask.body["tools"][0]["function"]["name"])
    except (KeyError, IndexError, TypeError):
        return "get_weather"


@behaviour
def reasoning(turn: Turn, *, reasoning: str = "Let me think about it.") -> Actions:
    """``reasoning_content`` before the content, as DeepSeek's reasoner sends it."""
    return as_asked(turn, turn.reply(reasoning=reasoning))


@behaviour
def refusal(turn: Turn, *, refusal: str = "I cannot help with that.") -> Actions:
    """The model declines; for the transport this is an answer like any other."""
    return as_asked(turn, turn.reply(text="", refusal=refusal))


@behaviour
def empty_finish(turn: Turn) -> Actions:
    """Finish reason ``stop`` and no text: legitimate, however odd."""
    return as_asked(turn, turn.reply(text=""))


@behaviour
def finish_reason(turn: Turn, *, reason: str = "length") -> Actions:
    """An answer with the given finish reason."""
    return as_asked(turn, turn.reply(finish_reason=reason))


@behaviour
def big(turn: Turn, *, bytes_: int = 1 << 20) -> Actions:
    """An answer of ``bytes`` bytes of text."""
    line = "All work and no play makes a dull provider.\n"
    text = (line * (bytes_ // len(line) + 1))[:bytes_]
    return as_asked(turn, turn.reply(text=text))


@behaviour
def hold(turn: Turn, *, after: int = 1) -> Actions:
    """Stop in the middle until ``POST /release``, then complete the answer."""
    reply = turn.reply()
    if turn.ask.stream:
        yield from begin(turn, reply, after)
        yield AwaitRelease()
        yield from conclude(turn, reply, after)
    else:
        yield AwaitRelease()
        yield from as_document(turn, reply)


# Good answers in an unusual form. -------------------------------------------


@behaviour
def drip(turn: Turn, *, gap: float = 0.05) -> Actions:
    """The right answer, one byte every ``gap`` seconds."""
    return in_pieces(as_asked(turn, turn.reply()), 1, gap)


@behaviour
def split(
    turn: Turn, *, size: int = 1, gap: float = 0.0, crlf: bool = False
) -> Actions:
    """The right answer, written in pieces of ``size`` bytes."""
    if turn.ask.stream:
        eol = b"\r\n" if crlf else b"\n"
        actions = as_stream(turn, turn.reply(), eol)
    else:
        actions = as_document(turn, turn.reply())
    return in_pieces(actions, max(1, size), gap)


@behaviour
def gzip(turn: Turn) -> Actions:
    """The right answer, compressed although nobody asked for it."""
    return compressed(as_asked(turn, turn.reply()))


@behaviour
def whole_for_stream(turn: Turn) -> Actions:
    """One JSON document, whatever the request asked for."""
    return as_document(turn, turn.reply())


@behaviour
def stream_for_whole(turn: Turn) -> Actions:
    """A stream, whatever the request asked for."""
    return as_stream(turn, turn.reply())


@behaviour
def bad_headers(turn: Turn) -> Actions:
    """The right answer with headers that a proxy must not believe or pass on."""
    hostile: Headers = [
        ("x-shunt-retry", "1"),
        ("x-shunt-provider", "forged"),
        ("x-envoy-ratelimited", "true"),
        ("x-envoy-overloaded", "true"),
        ("set-cookie", "__cf_bm=tracking; path=/; HttpOnly"),
        ("set-cookie", "_cfuvid=tracking; path=/; HttpOnly"),
        ("openai-organization", "org-of-the-operator"),
    ]
    for action in as_asked(turn, turn.reply()):
        if isinstance(action, Head):
            action = Head(action.status, action.headers + hostile, action.length)
        yield action


@behaviour
def no_done(turn: Turn) -> Actions:
    """A complete stream that lacks only ``data: [DONE]``."""
    return as_stream(turn, turn.reply(), done=False)


# Errors that are told. ------------------------------------------------------

ERRORS: Mapping[int, tuple[str, Optional[str], str]] = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    402: ("unknown_error", "invalid_request_error", "Insufficient Balance"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error."),
    503: ("server_error", None, "The engine is currently overloaded."),
}


@behaviour
def status(
    turn: Turn,
    *,
    status: int = 500,
    body: Union[str, Document, list[Any], None] = None,
    content_type: Optional[str] = None,
    code: Optional[str] = None,
    type_: Optional[str] = None,
    message: Optional[str] = None,
) -> Actions:
    """An error status with the given body, or an error envelope."""
    if isinstance(body, str):
        payload, kind = body.encode("utf-8"), "text/plain; charset=utf-8"
    else:
        if body is None:
            known = ERRORS.get(status, ERRORS[500 if status >= 500 else 400])
            body = error_envelope(
                message or known[2], type_ or known[0], code or known[1]
            )
        payload, kind = encode(body), JSON
    return whole_body(turn, payload, content_type or kind, status)


@behaviour
def html(turn: Turn, *, status: int = 502) -> Actions:
    """The error page of something that stands in front of the vendor."""
    page = (
        f"<!DOCTYPE html>\n<html><head><title>{status} Error</title></head>\n"
        f"<body><h1>{status}</h1><p>The origin is unreachable.</p></body></html>\n"
    )
    return whole_body(turn, page.encode("utf-8"), "text/html; charset=utf-8", status)


@behaviour
def redirect(turn: Turn, *, status: int = 302, to: str = "/elsewhere") -> Actions:
    """A redirection to another path on the same host."""
    location = ("location", turn.ask.base_url + to)
    return whole_body(turn, b"", "text/plain", status, [location])


@behaviour
def error_json_200(
    turn: Turn,
    *,
    code: Optional[str] = "server_error",
    type_: Optional[str] = "server_error",
    message: str = "The server had an error.",
) -> Actions:
    """An error envelope under status 200."""
    return whole_body(turn, encode(error_envelope(message, type_, code)))


@behaviour
def error_event_200(
    turn: Turn,
    *,
    after: int = 0,
    role: Optional[bool] = None,
    code: Optional[str] = "server_error",
    type_: Optional[str] = "server_error",
    message: str = "The server had an error.",
    event: bool = False,
    done: bool = False,
) -> Actions:
    """A stream that reports an error after ``after`` content chunks.

    With ``after`` 0 the error is the very first event, unless ``role`` asks
    for the role-only chunk before it.
    """
    reply = turn.reply()
    yield turn.head(EVENT_STREAM)
    if role or (role is None and after):
        yield from say(turn, reply.opening())
    yield from say(turn, reply.deltas()[:after])
    prefix = b"event: error\n" if event else b""
    envelope = encode(error_envelope(message, type_, code))
    yield Data(prefix + b"data: " + envelope + b"\n\n")
    if done:
        yield Data(done_event())
    yield End()


@behaviour_before_body
def early(turn: Turn, *, status: int = 500) -> Actions:
    """An error sent before the request body was read."""
    envelope = error_envelope(ERRORS[500][2], ERRORS[500][0])
    return whole_body(turn, encode(envelope), JSON, status)


# Answers that are none. -----------------------------------------------------


@behaviour
def garbage(turn: Turn, *, bytes_: int = 512) -> Actions:
    """Status 200 and noise, the same noise every time."""
    kind = EVENT_STREAM if turn.ask.stream else JSON
    return whole_body(turn, random.Random(bytes_).randbytes(bytes_), kind)


@behaviour
def empty_200(turn: Turn) -> Actions:
    """Status 200 and no body."""
    return whole_body(turn, b"", EVENT_STREAM if turn.ask.stream else JSON)


@behaviour
def empty_stream(turn: Turn) -> Actions:
    """A stream that ends before its first event."""
    yield turn.head(EVENT_STREAM)
    yield End()


@behaviour
def done_only(turn: Turn) -> Actions:
    """A stream with ``data: [DONE]`` and nothing else."""
    yield turn.head(EVENT_STREAM)
    yield Data(done_event())
    yield End()


@behaviour
def http_garbage(turn: Turn) -> Actions:
    """Bytes that are not HTTP, then a close."""
    yield Raw(b"\x00\x01\x02 this is not HTTP \xff\xfe\r\n\r\n")
    yield Fin()


# Slowness and silence. ------------------------------------------------------


@behaviour
def silent(turn: Turn, *, for_: float = PATIENCE) -> Actions:
    """Read the request and never answer."""
    return silence(for_)


@behaviour
def headers_only(turn: Turn, *, for_: float = PATIENCE) -> Actions:
    """The headers of an answer, then nothing."""
    yield turn.head(EVENT_STREAM if turn.ask.stream else JSON)
    yield from silence(for_)


@behaviour
def comments(
    turn: Turn,
    *,
    gap: float = 0.2,
    for_: Optional[float] = None,
    then: Optional[Step] = None,
) -> Actions:
    """Signs of life but no answer, as DeepSeek sends while a request is queued.

    A stream gets comments, a document blank lines before its JSON. After
    ``for`` seconds follows the answer of the step ``then``, without its
    headers; if there is none, the connection is closed.
    """
    if turn.ask.stream:
        yield turn.head(EVENT_STREAM)
        yield from beats(Data(b": keep-alive\n\n"), gap, for_)
    else:
        yield turn.head(JSON)
        yield from beats(Data(b"\n"), gap, for_)
    if then is not None:
        yield from without_head(then.actions(turn.ask))
    else:
        yield Fin()


@behaviour
def role_only(turn: Turn, *, gap: float = 0.2, for_: float = PATIENCE) -> Actions:
    """The role-only chunk again and again, and never any content."""
    yield turn.head(EVENT_STREAM)
    for chunk in turn.reply().opening():
        yield from beats(Data(event(chunk)), gap, for_)
    yield Fin()


@behaviour
def stall(turn: Turn, *, after: int = 2, for_: float = PATIENCE) -> Actions:
    """The beginning of an answer, then silence."""
    yield from _beginning(turn, after)
    yield from silence(for_)


# Answers that break off. ----------------------------------------------------


@behaviour
def cut(
    turn: Turn,
    *,
    after: int = 2,
    how: Literal["reset", "fin"] = "reset",
    connection: bool = False,
) -> Actions:
    """The beginning of an answer, then the connection breaks."""
    yield from _beginning(turn, after)
    yield Reset(connection) if how == "reset" else Fin()


def _beginning(turn: Turn, after: int) -> Actions:
    """``after`` content chunks of a stream, or half of a promised document."""
    reply = turn.reply()
    if turn.ask.stream:
        yield from begin(turn, reply, after)
    else:
        payload = encode(reply.whole())
        yield turn.head(JSON, len(payload))
        yield Data(payload[: len(payload) // 2])


@behaviour
def clean_cut(turn: Turn, *, after: int = 2, done: bool = False) -> Actions:
    """An answer that breaks off although HTTP says that it is complete."""
    reply = turn.reply()
    if turn.ask.stream:
        yield from begin(turn, reply, after)
        if done:
            yield Data(done_event())
        yield End()
    else:
        payload = encode(reply.whole())
        yield from whole_body(turn, payload[: len(payload) // 2])


@behaviour
def reset_before_headers(turn: Turn, *, connection: bool = False) -> Actions:
    """Read the request, then reset."""
    yield Reset(connection)


@behaviour_before_body
def reset_at_once(turn: Turn, *, connection: bool = False) -> Actions:
    """Reset on the request headers, without reading the body."""
    yield Reset(connection)


@behaviour
def reset_reused(turn: Turn) -> Actions:
    """Answer the first request of a connection and reset on any later one.

    This is how a kept-alive connection looks that the vendor has given up, so
    it is the connection that breaks, in HTTP/2 too.
    """
    if turn.ask.first_on_connection:
        yield from answer(turn)
    else:
        yield Reset(connection=True)


@behaviour
def close_before_headers(turn: Turn) -> Actions:
    """Read the request, then close without an answer."""
    yield Fin()
