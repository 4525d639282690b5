"""What reaches the client of a live stream on the chain, where its head has left before its body can be read."""

from __future__ import annotations

import pytest

from support import Upstream, World, ask, asked
from test_edges import CONTENT, FINISH, provider
from test_long import Pace, paced
from test_outcomes import breaker, status

DONE = b"data: [DONE]\n\n"
ERROR = b'event: error\ndata: {"error":{"message":"odd","type":"server_error","code":"odd"}}\n\n'


# The content type.


@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", 'Text/Event-Stream;Charset="UTF-8"', "text/event-stream", "text/plain; charset=latin1"])
def test_a_live_stream_has_one_content_type_whatever_the_provider_calls_it(world: World, kind: str) -> None:
    with provider(paced(kind, [(CONTENT + FINISH + DONE, 0)], Pace())) as port:
        answer = ask(world.gateway(upstreams={"openai": Upstream(port)}), stream=True)
    assert (answer.status, answer.headers["content-type"], answer.attempts) == (200, "text/event-stream", ["openai:answered"])
    answer.assert_whole_stream()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("code", [400, 404, 422, 503])
def test_an_error_has_one_content_type_whatever_the_provider_calls_it(world: World, code: int, stream: bool) -> None:
    for name in world.fakes:
        world.fakes[name].script(default=status(code, headers={"content-type": "application/json; charset=utf-8"}))
    answer = ask(world.gateway(), stream=stream)
    assert (answer.status, answer.headers["content-type"]) == (code, "application/json")
    assert answer.error


# An error in the piece that has the first content.


@pytest.mark.parametrize(
    "pieces",
    [
        [CONTENT + CONTENT + ERROR],
        [CONTENT, CONTENT + ERROR],
        [CONTENT + CONTENT, ERROR],
        [CONTENT + CONTENT + ERROR[:30], ERROR[30:]],
        [CONTENT[:30], CONTENT[30:] + CONTENT + ERROR[:-1], ERROR[-1:]],
    ],
    ids=["one", "behind", "apart", "cut", "cut_twice"],
)
def test_what_came_before_an_error_event_reaches_the_client(world: World, pieces: list[bytes]) -> None:
    with provider(paced("text/event-stream", [(piece, 0) for piece in pieces], Pace())) as port:
        gateway = world.gateway(breaker(1), upstreams={"openai": Upstream(port)})
        answer = ask(gateway, stream=True)
        assert (answer.status, answer.broken, answer.provider) == (200, None, "openai")
        *tokens, error = answer.events
        assert [event["choices"][0]["delta"]["content"] for event in tokens] == ["hi", "hi"]
        assert (error["error"]["message"], error["error"]["code"]) == ("odd", "odd")
        assert ask(gateway, stream=True).headers["x-shunt-degraded"] == "openai:open"
    assert asked(world) == ["deepseek"]
