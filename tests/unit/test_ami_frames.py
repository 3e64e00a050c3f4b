"""Frames: any chunking gives the same, nothing is lost, nothing grows without a limit."""

from __future__ import annotations

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from controlplane.edge.ami.frames import Frame, FrameParser

BANNER = b"Asterisk Call Manager/11.0.0\r\n"

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30)
FRAME = st.lists(LINE, min_size=1, max_size=6).map(lambda lines: "\r\n".join(lines).encode())
NOISE = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"a: b", b"Event: E", b"\xc3", b"\xbc"]), max_size=40
)


def feed(data: bytes, cuts: list[int], **options: int) -> tuple[list[Frame], FrameParser]:
    parser = FrameParser(max_frame_bytes=options.get("cap", 1 << 20))
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    frames: list[Frame] = []
    for start, end in itertools.pairwise(at):
        frames += parser.feed(data[start:end])
    return frames, parser


@given(st.lists(FRAME, max_size=8), st.lists(st.integers(0, 10_000), max_size=30), st.booleans())
def test_any_chunking_gives_the_same_frames(frames: list[bytes], cuts: list[int], greeted: bool) -> None:
    data = (BANNER if greeted else b"") + b"".join(frame + b"\r\n\r\n" for frame in frames)
    whole, _ = feed(data, [])
    cut, _ = feed(data, cuts)
    single, _ = feed(data, list(range(len(data))))
    assert whole == cut == single


@given(NOISE.map(b"".join), st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 40))
def test_any_chunking_of_any_bytes_gives_the_same_also_at_the_cap(data: bytes, cuts: list[int], cap: int) -> None:
    whole, first = feed(data, [], cap=cap)
    cut, second = feed(data, cuts, cap=cap)
    assert (whole, first.oversized) == (cut, second.oversized)
    for frame in whole:
        assert len(frame.raw) <= cap
        list(frame.items())


def test_banner_is_no_frame() -> None:
    frames, parser = feed(BANNER + b"Response: Success\r\n\r\n", [])
    assert parser.banner == "11.0.0"
    assert [list(frame.items()) for frame in frames] == [[("Response", "Success")]]


def test_headers_are_kept_in_order_with_duplicates_and_without_a_space() -> None:
    frame = Frame(
        b"Event: E\r\nChanVariable: A=1\r\nchanvariable:B=2\r\nX:y\r\nEmpty:\r\nTwo:  blanks \r\nno colon here"
    )
    assert frame.all("ChanVariable") == ("A=1", "B=2")
    assert frame.get("CHANVARIABLE") == "A=1"
    assert (frame.get("x"), frame.get("Empty", "-"), frame.get("Two")) == ("y", "", " blanks ")
    assert frame.get("no colon here", "absent") == "absent"
    assert "chanVariable" in frame
    assert "other" not in frame


def test_wrong_bytes_are_replaced_and_other_line_separators_left_alone() -> None:
    frame = Frame("Event: E\r\nName: a\u2028b\x85c\x0b".encode() + b"\xc3\r\nNext: \xff1")
    assert frame.get("Name") == "a\u2028b\x85c\x0b�"
    assert frame.get("Next") == "�1"


def test_first_header_says_whether_it_is_an_event() -> None:
    originated = Frame(b"Event: OriginateResponse\r\nActionID: 1\r\nResponse: Success")
    assert (originated.name, originated.is_event, originated.action_id) == ("OriginateResponse", True, "1")
    answer = Frame(b"Response: Success\r\nActionID: 2\r\nEvent: x")
    assert (answer.name, answer.is_event, answer.action_id) == ("", False, "2")
    assert Frame(b"privilege: a\r\nevent:E").name == "E"
    assert Frame(b"nothing").name == ""
    assert Frame(b"Event: E").name == "E"


def test_nothing_is_url_decoded() -> None:
    assert Frame(b"Event: AGIExec\r\nResult: 200%20ok").get("Result") == "200%20ok"


def test_unwanted_events_are_dropped_but_not_those_that_answer_an_action() -> None:
    parser = FrameParser(wanted=frozenset({"A"}))
    frames = parser.feed(
        b"Event: A\r\nN: 1\r\n\r\nEvent: B\r\nN: 2\r\n\r\nEvent: B\r\nActionID: x\r\n\r\n"
        b"Response: Success\r\n\r\nEvent: AB\r\n\r\n"
    )
    assert [frame.name for frame in frames] == ["A", "B", ""]
    assert parser.unwanted == 2


def test_repr_shows_no_values() -> None:
    assert "4711" not in repr(Frame(b"Event: UserEvent\r\nPin: 4711"))


def test_frame_of_exactly_the_cap_is_taken_and_one_more_is_not() -> None:
    for cuts in ([], list(range(100))):
        frames, parser = feed(
            b"E: " + b"x" * 7 + b"\r\n\r\n" + b"E: " + b"x" * 8 + b"\r\n\r\nE: 1\r\n\r\n", cuts, cap=10
        )
        assert [frame.get("E") for frame in frames] == ["x" * 7, "1"]
        assert parser.oversized == 1


def test_endless_frame_holds_no_memory_and_is_counted_once() -> None:
    parser = FrameParser(max_frame_bytes=1000)
    for _ in range(1000):
        assert parser.feed(b"x" * 1000) == []
    assert sum(len(piece) for piece in parser._open) <= 3
    assert parser.oversized == 1
    assert [frame.get("A") for frame in parser.feed(b"\r\n\r\nA: 1\r\n\r\n")] == ["1"]


def test_cost_is_linear_in_the_size_of_a_frame() -> None:
    def cost_s(size: int) -> float:
        parser = FrameParser(max_frame_bytes=1 << 26)
        data = b"Event: E\r\n" + b"X: 1234567890\r\n" * (size // 15) + b"\r\n"
        began = time.perf_counter()
        frames = [frame for at in range(0, len(data), 1460) for frame in parser.feed(data[at : at + 1460])]
        assert frames[0].get("X") == "1234567890"
        return time.perf_counter() - began

    small = min(cost_s(1 << 18) for _ in range(3))
    assert min(cost_s(1 << 21) for _ in range(3)) < 8 * 4 * small
