"""Every golden answer is one of OpenAI's: its own package reads it strictly, field for field."""

from __future__ import annotations

import array
import base64
import json
import pathlib
from typing import Any, Iterator

import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.shared import ErrorObject
from pydantic import BaseModel, TypeAdapter, ValidationError

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "golden" / "answers"
BODIES = sorted(FOLDER.glob("*/*.expected.json"))
STREAMS = sorted(FOLDER.glob("*/*.expected.sse"))
WHOLE: dict[str, type[BaseModel]] = {
    "completion": Completion,
    "embeddings": CreateEmbeddingResponse,
    "response": Response,
}
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def named(path: pathlib.Path) -> str:
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


def kind(path: pathlib.Path) -> str:
    """What it is an answer to."""
    return path.name.partition(".")[0].partition("_")[0]


def check_error(envelope: dict[str, Any]) -> None:
    assert list(envelope) == ["error"]
    assert set(envelope["error"]) == {"message", "type", "param", "code"}
    error = ErrorObject.model_validate(envelope["error"], strict=True)
    assert error.message and error.type


def events(path: pathlib.Path) -> Iterator[str]:
    """The data of every event."""
    text = path.read_bytes().decode().replace("\r\n", "\n")
    assert text == "" or text.endswith("\n\n")
    for block in text.split("\n\n"):
        data = [line.removeprefix("data: ") for line in block.split("\n") if line.startswith("data")]
        if data:
            yield "\n".join(data)


@pytest.mark.parametrize("path", BODIES, ids=named)
def test_a_body_is_an_answer_or_the_envelope(path: pathlib.Path) -> None:
    answer = json.loads(path.read_bytes())
    if answer.get("error") is not None:
        check_error(answer)
        return
    assert not path.name.startswith("error_")
    for vector in answer.get("data", []):
        if isinstance(vector["embedding"], str):
            # As the package does it.
            vector["embedding"] = array.array("f", base64.b64decode(vector["embedding"])).tolist()
    read = WHOLE.get(kind(path), ChatCompletion).model_validate(answer, strict=True)
    if isinstance(read, ChatCompletion):
        for call in (call for choice in read.choices for call in choice.message.tool_calls or []):
            assert call.type == "function"
            json.loads(call.function.arguments)


@pytest.mark.parametrize("path", STREAMS, ids=named)
def test_a_stream_is_chunks_and_then_done_or_an_error(path: pathlib.Path) -> None:
    if kind(path) == "response":
        for data in events(path):
            RESPONSE_EVENT.validate_json(data)
        return
    ended = False
    heads = set()
    for data in events(path):
        assert not ended, "something follows the end"
        chunk = None if data == "[DONE]" else json.loads(data)
        ended = chunk is None or "error" in chunk
        if chunk is None:
            continue
        if ended:
            check_error(chunk)
        elif kind(path) == "completion":
            for choice in chunk["choices"]:
                # OpenAI streams null here, which its own type does not know.
                choice["finish_reason"] = choice["finish_reason"] or "stop"
            Completion.model_validate(chunk, strict=True)
        else:
            read = ChatCompletionChunk.model_validate(chunk, strict=True)
            heads.add((read.id, read.created, read.model))
            assert all("finish_reason" in choice for choice in chunk["choices"])
    assert ended or path.stat().st_size == 0
    if path.parent.name != "compatible":
        assert len(heads) <= 1, "all chunks have one id, time and model"


def test_there_are_answers_to_check() -> None:
    assert len(BODIES) > 60 and len(STREAMS) > 40
    assert sum(path.stat().st_size == 0 for path in STREAMS) < 8


def test_what_the_provider_sent_would_be_refused() -> None:
    for case in ["bare", "nulls", "words_of_its_own", "usage_without_total", "tools_bare"]:
        sent = json.loads((FOLDER / "compatible" / f"{case}.json").read_bytes())
        with pytest.raises(ValidationError):
            ChatCompletion.model_validate(sent, strict=True)
