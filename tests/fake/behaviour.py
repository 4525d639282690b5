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
from collections.abc import Mapping
from dataclasses import dataclass
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
    Actions,
    AwaitRelease,
    Data,
    End,
    Fin,
    Head,
    Headers,
    Raw,
    Reset,
    Sleep,
)
from documents import (
    RESPONSES,
    Ask,
    Document,
    Telling,
    ToolCall,
    complaint,
    encode,
    error_envelope,
)
from responses_api import ResponsesTelling
from sloppy import Miss, SloppyTelling
from telling import (
    EVENT_STREAM,
    JSON,
    HeaderValue,
    Turn,
    as_asked,
    as_document,
    as_stream,
    beats,
    began,
    begin,
    compressed,
    conclude,
    done_event,
    event,
    generated,
    in_pieces,
    say,
    say_parts,
    silence,
    whole_body,
    without_head,
)

PATIENCE = 600.0  # how long a silent provider stays silent before it closes


class BadStep(ValueError):
    """A step of a script that cannot be played."""


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


Usage = Literal[
    "normal", "none", "zero", "in_last_chunk", "every_chunk", "deepseek_only", "partial"
]

COMMON: Mapping[str, Any] = {
    "delay": float,
    "headers": dict[str, HeaderValue],
    "text": str,
    "chunks": int,
    "gap": float,
    "usage": Usage,
    "cached": int,
    "cache_written": int,
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


# Good answers. --------------------------------------------------------------


@behaviour
def answer(turn: Turn) -> Actions:
    """A correct answer."""
    return as_asked(turn, turn.tell())


@behaviour
def tool_call(
    turn: Turn, *, name: Optional[str] = None, arguments: str = '{"city":"Paris"}'
) -> Actions:
    """A call of the first tool the request offers, or of ``name``."""
    tool = ToolCall(name or _first_tool(turn.ask), arguments)
    return as_asked(turn, turn.tell(text="", tool=tool, finish_reason="tool_calls"))


def _first_tool(ask: Ask) -> str:
    try:
        tool = ask.body["tools"][0]
        # Chat completions wrap what the other formats say directly.
        return str(tool.get("function", tool)["name"])
    except (AttributeError, KeyError, IndexError, TypeError):
        return "get_weather"


@behaviour
def reasoning(turn: Turn, *, reasoning: str = "Let me think about it.") -> Actions:
    """``reasoning_content`` before the content, as DeepSeek's reasoner sends it."""
    return as_asked(turn, turn.tell(reasoning=reasoning))


@behaviour
def refusal(turn: Turn, *, refusal: str = "I cannot help with that.") -> Actions:
    """The model declines; for the transport this is an answer like any other."""
    return as_asked(turn, turn.tell(text="", refusal=refusal))


@behaviour
def empty_finish(turn: Turn) -> Actions:
    """Finish reason ``stop`` and no text: legitimate, however odd."""
    return as_asked(turn, turn.tell(text=""))


@behaviour
def finish_reason(turn: Turn, *, reason: str = "length") -> Actions:
    """An answer with the given finish reason."""
    return as_asked(turn, turn.tell(finish_reason=reason))


@behaviour
def big(turn: Turn, *, bytes_: int = 1 << 20) -> Actions:
    """An answer of ``bytes`` bytes of text."""
    line = "All work and no play makes a dull provider.\n"
    text = (line * (bytes_ // len(line) + 1))[:bytes_]
    return as_asked(turn, turn.tell(text=text))


@behaviour
def hold(turn: Turn, *, after: int = 1) -> Actions:
    """Stop in the middle until ``POST /release``, then complete the answer."""
    telling = turn.tell()
    if turn.ask.stream:
        yield from begin(turn, telling, after)
        yield AwaitRelease()
        yield from conclude(turn, telling, after)
    else:
        yield AwaitRelease()
        yield from as_document(turn, telling)


# Good answers in an unusual form. -------------------------------------------


@behaviour
def drip(turn: Turn, *, gap: float = 0.05) -> Actions:
    """The right answer, one byte every ``gap`` seconds."""
    return in_pieces(as_asked(turn, turn.tell()), 1, gap)


@behaviour
def split(
    turn: Turn, *, size: int = 1, gap: float = 0.0, crlf: bool = False
) -> Actions:
    """The right answer, written in pieces of ``size`` bytes."""
    if turn.ask.stream:
        eol = b"\r\n" if crlf else b"\n"
        actions = as_stream(turn, turn.tell(), eol)
    else:
        actions = as_document(turn, turn.tell())
    return in_pieces(actions, max(1, size), gap)


@behaviour
def gzip(turn: Turn) -> Actions:
    """The right answer, compressed although nobody asked for it."""
    return compressed(as_asked(turn, turn.tell()))


@behaviour
def whole_for_stream(turn: Turn) -> Actions:
    """One JSON document, whatever the request asked for."""
    return as_document(turn, turn.tell())


@behaviour
def stream_for_whole(turn: Turn) -> Actions:
    """A stream, whatever the request asked for."""
    return as_stream(turn, turn.tell())


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
    for action in as_asked(turn, turn.tell()):
        if isinstance(action, Head):
            action = Head(action.status, action.headers + hostile, action.length)
        yield action


@behaviour
def no_done(turn: Turn) -> Actions:
    """A complete stream that lacks only ``data: [DONE]``."""
    return as_stream(turn, turn.tell(), done=False)


@behaviour
def sloppy(
    turn: Turn,
    *,
    miss: Optional[list[Miss]] = None,
    finish: Optional[str] = None,
    reasoning: str = "",
    tool: bool = False,
) -> Actions:
    """A good answer with the fields in ``miss`` left out or bent."""
    call = ToolCall(_first_tool(turn.ask), '{"city":"Paris"}')
    changes: Document = {"reasoning": reasoning}
    if tool:
        changes.update(text="", tool=call, finish_reason="tool_calls")
    return as_asked(turn, SloppyTelling(turn.tell(**changes), miss or [], finish))


@behaviour
def malformed_event(
    turn: Turn, *, after: int = 1, data: str = '{"choices":[{"delta":'
) -> Actions:
    """An event with broken JSON after ``after`` content chunks of a good stream."""
    telling = turn.tell()
    yield from begin(turn, telling, after)
    yield Data(b"data: " + data.encode("utf-8", "replace") + b"\n\n")
    yield from conclude(turn, telling, after)


@behaviour
def split_event(turn: Turn, *, after: int = 1, times: int = 1) -> Actions:
    """A good answer; in a stream ``times`` content chunks are each cut into two events."""
    telling = turn.tell()
    if not turn.ask.stream:
        yield from as_document(turn, telling)
        return
    yield from begin(turn, telling, after)
    for action in conclude(turn, telling, after):
        if isinstance(action, Data) and times:
            head, _, document = action.payload.rstrip(b"\n").rpartition(b"data: ")
            middle = document.index(b":", len(document) // 2)
            for piece in (document[:middle], document[middle:]):
                yield Data(head + b"data: " + piece + b"\n\n")
            times -= 1
        else:
            yield action


@behaviour
def leading_blank(turn: Turn, *, blank: str = "\n\n \n") -> Actions:
    """A good answer with white space before the JSON, or before the first event."""
    before = blank.encode("utf-8", "replace")
    if not turn.ask.stream:
        yield from as_document(turn, turn.tell(), before)
        return
    for action in as_stream(turn, turn.tell()):
        yield action
        if isinstance(action, Head):
            yield Data(b"\n" * max(1, before.count(b"\n")))


# Errors that are told. ------------------------------------------------------

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
            body = complaint(turn.ask, status, message, type_, code)
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
    return whole_body(turn, encode(_envelope(turn.ask, message, type_, code)))


def _envelope(
    ask: Ask, message: str, type_: Optional[str], code: Optional[str]
) -> Document:
    if ask.anthropic:
        return complaint(ask, 500, message, type_)
    return error_envelope(message, type_, code)


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
    nested: bool = False,
) -> Actions:
    """A stream that reports an error after ``after`` content chunks.

    With ``after`` 0 the error is the very first event, unless ``role`` asks
    for the events before it that have no content.
    """
    telling = turn.tell()
    yield from _before_failure(turn, telling, after, role)
    error = telling.failure(after, message, type_, code)
    if "sequence_number" in error and not (after or role):
        error["sequence_number"] = 0  # nothing came before it
    if nested and turn.ask.kind == RESPONSES:
        told = error_envelope(message, type_, code)["error"]
        number = error["sequence_number"]
        error = {"type": "error", "error": told, "sequence_number": number}
    named = event or telling.named
    prefix = b"event: error\n" if named else b""
    yield Data(prefix + b"data: " + encode(error) + b"\n\n")
    if done:
        yield Data(done_event())
    yield End()


def _before_failure(
    turn: Turn, telling: Telling, after: int, role: Optional[bool]
) -> Actions:
    yield turn.head(EVENT_STREAM)
    if role or (role is None and after):
        yield began(telling)
        yield from say(turn, telling, telling.opening())
    yield from say_parts(turn, telling, telling.parts()[:after])


@behaviour
def response_failed(
    turn: Turn,
    *,
    after: int = 0,
    code: str = "server_error",
    message: str = "The server had an error.",
) -> Actions:
    """The Responses API's own failure: a response with an error in it.

    For the other endpoints this is ``error_event_200`` or ``error_json_200``.
    """
    telling = turn.tell()
    if not isinstance(telling, ResponsesTelling):
        if turn.ask.stream:
            yield from error_event_200(
                turn, after=after, role=True, code=code, message=message
            )
        else:
            yield from error_json_200(turn, code=code, message=message)
    elif turn.ask.stream:
        yield from _before_failure(turn, telling, after, role=True)
        yield from say(turn, telling, [telling.failed(after, message, code)])
        yield End()
    else:
        yield from whole_body(turn, encode(telling.failed_response(message, code)))


@behaviour_before_body
def early(turn: Turn, *, status: int = 500) -> Actions:
    """An error sent before the request body was read."""
    return whole_body(turn, encode(complaint(turn.ask, 500)), JSON, status)


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
    telling = turn.tell()
    yield turn.head(EVENT_STREAM)
    yield began(telling)
    opening = telling.opening()
    yield from say(turn, telling, opening[:-1])
    if opening:
        yield from beats(Data(event(opening[-1], named=telling.named)), gap, for_)
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
    telling = turn.tell()
    if turn.ask.stream:
        yield from begin(turn, telling, after)
    else:
        payload = encode(telling.whole())
        yield turn.head(JSON, len(payload))
        yield from generated(telling)
        yield Data(payload[: len(payload) // 2])


@behaviour
def clean_cut(turn: Turn, *, after: int = 2, done: bool = False) -> Actions:
    """An answer that breaks off although HTTP says that it is complete."""
    telling = turn.tell()
    if turn.ask.stream:
        yield from begin(turn, telling, after)
        if done:
            yield Data(done_event())
        yield End()
    else:
        payload = encode(telling.whole())
        yield from generated(telling)
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
