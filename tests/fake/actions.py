"""The low-level things a provider can do to one exchange.

A behaviour (see ``behaviour.py``) is a lazy sequence of these. They say what
the peer shall observe and nothing about HTTP/1.1 or HTTP/2, so that one
vocabulary of faults serves both transports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

if TYPE_CHECKING:
    from documents import Counts

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Sleep:
    """Do nothing for a while. Zero still lets other exchanges run."""

    seconds: float


@dataclass(frozen=True)
class Head:
    """Send status and headers.

    ``length`` is the content-length to promise, which a fault need not keep;
    ``None`` means a body of unknown length (chunked in HTTP/1.1).
    """

    status: int
    headers: Headers
    length: Optional[int] = None


@dataclass(frozen=True)
class Data:
    """Send body bytes, as one chunk or DATA frame where windows allow."""

    payload: bytes


@dataclass(frozen=True)
class End:
    """End the response as HTTP prescribes."""


@dataclass(frozen=True)
class Reset:
    """Break off with a TCP RST; HTTP/2 resets the stream unless ``connection``."""

    connection: bool = False


@dataclass(frozen=True)
class Fin:
    """Close the TCP connection in an orderly way, whatever state HTTP is in."""


@dataclass(frozen=True)
class Raw:
    """Put bytes on the connection without any HTTP framing."""

    payload: bytes


@dataclass(frozen=True)
class AwaitRelease:
    """Wait for ``POST /release`` on the control API."""


@dataclass(frozen=True)
class Reported:
    """Note for the log: by now this usage has been sent in full."""

    usage: Optional[dict[str, Any]]


@dataclass(frozen=True)
class Began:
    """Note for the log: an answer of this id begins, and its prompt was read."""

    id: Optional[str]
    counts: "Counts"


@dataclass(frozen=True)
class Said:
    """Note for the log: by now this much more has been generated and sent."""

    said: str = ""
    thought: str = ""


@dataclass(frozen=True)
class Issued:
    """From now on requests may continue the answer of this id."""

    id: str
    tokens: int


Note = Union[Reported, Began, Said, Issued]
Action = Union[Sleep, Head, Data, End, Reset, Fin, Raw, AwaitRelease, Note]
Actions = Iterator[Action]
