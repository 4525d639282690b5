"""What a vendor's model does not take: conversations that it answers with 400.

Set per test with ``POST /lacks``; a reset takes everything again.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from checks import Refusal
from documents import Document
from tokenizer import Count

Messages = list[Document]


def _parts(messages: Messages) -> set[str]:
    contents = [message.get("content") for message in messages]
    lists = [content for content in contents if isinstance(content, list)]
    return {str(part.get("type")) for parts in lists for part in parts if isinstance(part, dict)}


def _format(body: Document) -> Optional[str]:
    found = body.get("response_format")
    return found.get("type") if isinstance(found, dict) else None


def _calls(message: Document) -> bool:
    return bool(message.get("tool_calls"))


def _thinks(body: Document) -> bool:
    thinking = body.get("thinking")
    return not (isinstance(thinking, dict) and thinking.get("type") == "disabled")


Rule = Callable[[Document, Messages], bool]

#: By name: whether a request has what such a model does not take, and the vendor's words.
RULES: dict[str, tuple[Rule, str]] = {
    "images": (
        lambda body, messages: bool({"image_url", "input_image"} & _parts(messages)),
        "unknown variant `image_url`, expected `text`",
    ),
    "audio": (
        lambda body, messages: "input_audio" in _parts(messages) or "audio" in (body.get("modalities") or []),
        "This model does not support audio.",
    ),
    "files": (lambda body, messages: "file" in _parts(messages), "This model does not support file content."),
    "tools": (
        lambda body, messages: bool(body.get("tools"))
        or any(_calls(one) or one.get("role") == "tool" for one in messages),
        "This model does not support tool use.",
    ),
    "json_object": (
        lambda body, messages: _format(body) == "json_object",
        "'response_format' of type 'json_object' is not supported with this model.",
    ),
    "json_schema": (
        lambda body, messages: _format(body) == "json_schema",
        "This response_format type is unavailable now",
    ),
    "prefill": (
        lambda body, messages: bool(messages) and messages[-1].get("role") == "assistant" and not _calls(messages[-1]),
        "The last message must be a user message.",
    ),
    "developer": (
        lambda body, messages: any(one.get("role") == "developer" for one in messages),
        "messages[0].role: unknown variant `developer`",
    ),
    "reasoning": (
        lambda body, messages: any("reasoning_content" in one for one in messages),
        "property 'messages.1.assistant.reasoning_content' is unsupported",
    ),
    "bare_calls": (
        lambda body, messages: _thinks(body)
        and any(_calls(one) and one.get("reasoning_content") is None for one in messages),
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
    ),
}


class Lacks:
    """What is not taken, and the longest conversation that is, in tokens."""

    def __init__(self, spec: Any = None) -> None:
        spec = {} if spec is None else spec
        if not isinstance(spec, dict) or spec.keys() - {"features", "context"}:
            raise ValueError('"features" and "context" are known')
        self.features: list[str] = spec.get("features", [])
        self.context: Optional[int] = spec.get("context")
        if unknown := set(self.features) - RULES.keys():
            raise ValueError(f"unknown features: {sorted(unknown)}; known are {sorted(RULES)}")

    def refusal(self, body: Any, prompt: str, count: Count) -> Optional[Refusal]:
        """Why the vendor would not take a request, or None if it would."""
        if not isinstance(body, dict):
            return None
        found = body.get("messages")
        messages = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        for feature in self.features:
            rule, words = RULES[feature]
            if rule(body, messages):
                return Refusal(400, words, "invalid_request_error")
        most = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        if self.context is not None and count(prompt) + most > self.context:
            words = f"This model's maximum context length is {self.context} tokens."
            return Refusal(400, words, "invalid_request_error", "context_length_exceeded", "messages")
        return None
