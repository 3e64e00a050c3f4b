"""Bytes of an AMI connection to frames, without I/O.

Why it exists: panoramisk 1.4 decodes for each TCP chunk, overwrites duplicate headers and has no limit of size. Here
a frame is what stands between two blank lines, whatever the chunks were; its cost is linear in its size and its memory
is capped: a frame longer than the cap is dropped and counted. Fields are parsed only when somebody asks for one,
because most events of a busy server are not wanted. Must not know: sockets, actions, what an event means.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

MAX_FRAME_BYTES: Final = 1 << 20

_EOL: Final = b"\r\n"
_END: Final = b"\r\n\r\n"
_BANNER: Final = b"Asterisk Call Manager/"
_EVENT: Final = b"Event: "
_OWNED: Final = b"ActionID"


@final
class Frame:
    """One message of AMI: a response or an event, with its headers in the order they came.

    `get` and `all` ignore the case of a header's name. Nothing is decoded beyond UTF-8 (no URL decoding): wrong bytes
    become U+FFFD, so the text can always be logged and stored.
    """

    __slots__ = ("_first", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw: Final = raw
        self._first: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """The event's name, or "" for a response. The header that comes first decides: a UserEvent may carry both."""
        raw = self.raw
        if raw.startswith(_EVENT):
            end = raw.find(_EOL, 7)
            return raw[7 : end if end >= 0 else None].decode("utf-8", "replace")
        for key, value in self._pairs():
            match key.lower():
                case "event":
                    return value
                case "response":
                    return ""
        return ""

    @property
    def is_event(self) -> bool:
        """Whether this is an event rather than the response to an action."""
        return self.name != ""

    @property
    def action_id(self) -> str:
        """The ActionID, or "". Asterisk writes this header's name in this case only, so most events need no parsing."""
        return self.get("ActionID") if _OWNED in self.raw else ""

    def get(self, name: str, default: str = "") -> str:
        """The first value of a header, or the default."""
        return self._parsed().get(name.lower(), default)

    def all(self, name: str) -> tuple[str, ...]:
        """All values of a header in their order: ChanVariable, Variable, Output come more than once."""
        wanted = name.lower()
        return tuple(value for key, value in self._pairs() if key.lower() == wanted)

    def items(self) -> Iterator[tuple[str, str]]:
        """All headers as they came, duplicates too."""
        return self._pairs()

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._parsed()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        """Name and size only: frames carry callers' numbers and must not reach a log by accident."""
        return f"<Frame {self.name or 'response'} {len(self.raw)} bytes>"

    def _parsed(self) -> dict[str, str]:
        first = self._first
        if first is None:
            first = self._first = {}
            for line in self._lines():
                # `_split` by hand: this is the hot loop, and nearly every line is "Key: value".
                key, colon, value = line.partition(": ")
                if not colon or ":" in key:
                    key, colon, value = _split(line)
                    if not colon:
                        continue
                key = key.lower()
                if key not in first:
                    first[key] = value
        return first

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for line in self._lines():
            key, colon, value = _split(line)
            if colon:
                yield key, value

    def _lines(self) -> list[str]:
        # Not splitlines(): it also splits at U+0085, U+2028 and others which may stand in a caller's name.
        return self.raw.decode("utf-8", "replace").split("\r\n")


def _split(line: str) -> tuple[str, str, str]:
    """Header, colon and value; one blank after the colon belongs to neither, and may be missing."""
    key, colon, value = line.partition(":")
    return key, colon, value[1:] if value.startswith(" ") else value


class FrameParser:
    """Collects chunks of any size and gives the frames that are whole.

    `wanted` (names of events; None: all) drops other events before anything of them is parsed, except those that carry
    an ActionID: these may be items of a list that somebody waits for.
    """

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES, wanted: frozenset[str] | None = None) -> None:
        self._max = max_frame_bytes
        self._wanted = None if wanted is None else frozenset(name.encode() for name in wanted)
        self._open: list[bytes] = []  # the beginning of a frame whose end has not come; joined once, so cost is linear
        self._open_bytes = 0
        self._seam = b""  # the last 3 bytes seen: the blank line may be split over two chunks
        self._skipping = False
        self._greeted = False
        self.banner = ""
        self.oversized = 0
        self.unwanted = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames completed by this chunk, in order. Never raises, whatever the bytes are."""
        if self._open and _END not in chunk and _END not in self._seam + chunk[:3]:
            self._keep(chunk)
            return []
        data = b"".join((*self._open, chunk)) if self._open else chunk
        parts = data.split(_END)
        rest = parts.pop()
        if self._skipping and parts:
            # What was kept is only the seam of a frame that is already counted as too long.
            parts[0] = b""
            self._skipping = False
        self._open, self._open_bytes, self._seam = [], 0, b""
        frames = [Frame(raw) for part in parts if (raw := self._checked(part))]
        if rest:
            self._keep(rest)
        return frames

    def _keep(self, piece: bytes) -> None:
        """Hold the beginning of a frame; of one that is already too long only what may be half a blank line."""
        self._seam = (self._seam + piece)[-3:]
        self._open_bytes += len(piece)
        # Up to 3 of these bytes may belong to the blank line; beyond that the frame is too long for certain.
        if not self._skipping and self._open_bytes > self._max + 3:
            self._skipping = True
            self.oversized += 1
        if self._skipping:
            self._open = [self._seam]
        else:
            self._open.append(piece)

    def _checked(self, part: bytes) -> bytes:
        """The frame without what does not belong to it, or b"" when it is too long, empty or unwanted."""
        if len(part) > self._max:
            self.oversized += 1
            return b""
        if not self._greeted and part:
            self._greeted = True
            if part.startswith(_BANNER):
                line, _, part = part.partition(_EOL)
                self.banner = line[len(_BANNER) :].decode("utf-8", "replace").strip()
        if part.startswith(_EOL):
            part = part.lstrip(_EOL)
        wanted = self._wanted
        if (
            wanted is not None
            and part.startswith(_EVENT)
            and part[7:].partition(_EOL)[0] not in wanted
            and _OWNED not in part
        ):
            self.unwanted += 1
            return b""
        return part
