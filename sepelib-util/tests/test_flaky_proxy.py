import contextlib
import fcntl
import itertools
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sepelib.util.testing._proxy import FlakyProxy
from sepelib.util.testing._threaded_server import ThreadedServer

Peer = tuple[str, int]


class Echo(ThreadedServer):
    """Answers what it gets; half-closed, it says so before it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = bytearray()
        self.ends: list[str] = []

    def handle(self, connection: socket.socket, peer: Peer) -> None:
        try:
            while data := connection.recv(65536):
                self.heard += data
                connection.sendall(data)
            self.ends.append("closed")
            connection.sendall(b"bye")
        except ConnectionError:
            self.ends.append("reset")


class Flood(ThreadedServer):
    """Sends for ever, and knows how much it got rid of."""

    sent = 0

    def handle(self, connection: socket.socket, peer: Peer) -> None:
        while True:
            self.sent += connection.send(b"x" * 65536)


class Journal(ThreadedServer):
    """Numbered frames: writes each one down, then answers it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []

    def handle(self, connection: socket.socket, peer: Peer) -> None:
        with connection.makefile("rb") as lines:
            for line in lines:
                self.lines.append(line)
                connection.sendall(b"done " + line)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        yield server


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FlakyProxy]:
    with FlakyProxy(*echo.address) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FlakyProxy) -> Iterator[socket.socket]:
    with connect(proxy) as client:
        yield client


def connect(server: ThreadedServer) -> socket.socket:
    client = socket.create_connection(server.address, timeout=20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def read(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return bytes(data)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return read(client, len(data))


def hears_nothing(client: socket.socket) -> bool:
    """Nothing is there to read now: use it after a wait for the moment of truth."""
    client.setblocking(False)
    try:
        return not client.recv(1) and False
    except BlockingIOError:
        return True
    finally:
        client.settimeout(20)


def in_parallel(count: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    with Echo() as warm, connect(warm) as client:  # gevent opens files of its own at first use
        ask(client, b"x")
    threads, files = set(threading.enumerate()), open_files()
    yield
    assert set(threading.enumerate()) <= threads
    assert open_files() == files


# Passing.


def test_it_passes_bytes_both_ways(client: socket.socket, proxy: FlakyProxy, echo: Echo) -> None:
    assert ask(client, b"hello") == b"hello"
    assert proxy.received == proxy.passed == (5, 5)
    assert proxy.connections == (1, 1)
    assert echo.connections == (1, 1)


def test_it_passes_much(client: socket.socket, proxy: FlakyProxy) -> None:
    data = os.urandom(1 << 20) * 8
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert read(client, len(data)) == data
    sender.join()
    assert proxy.passed == (len(data), len(data))


def test_a_half_close_is_passed_on_and_the_other_direction_goes_on(
    client: socket.socket, echo: Echo
) -> None:
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert read(client, 100) == b"last wordsbye"
    assert echo.ends == ["closed"]


def test_a_close_by_the_server_is_passed_on(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    assert ask(client, b"x") == b"x"
    echo.restart()
    assert client.recv(1) == b""


def test_a_reset_by_the_client_is_passed_on_as_a_reset(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    assert ask(client, b"x") == b"x"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    echo.wait_for(lambda: echo.ends == ["reset"])
    proxy.wait_for(lambda: proxy.connections.open == 0)


def test_a_client_that_leaves_a_talking_server_is_told_on() -> None:
    with Flood() as server, FlakyProxy(*server.address) as proxy:
        with connect(proxy) as client:
            assert read(client, 1000)
        server.wait_for(lambda: server.connections == (1, 0))
        proxy.wait_for(lambda: proxy.connections == (1, 0))


def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    with Flood() as server, FlakyProxy(*server.address) as proxy, connect(proxy):
        server.wait_for(lambda: server.sent > 0)
        settled = -1
        while settled != server.sent:
            settled = server.sent
            time.sleep(0.2)  # a pause in which a free writer would send hundreds of megabytes
        waiting = proxy.received.replies - proxy.passed.replies
        assert waiting <= (256 + 64) * 1024


def test_an_unreachable_server_is_a_reset(proxy: FlakyProxy, echo: Echo) -> None:
    def talk() -> None:
        with connect(proxy) as client:  # the reset may come as early as this
            client.recv(1)

    echo.stop()
    with pytest.raises(ConnectionResetError):
        talk()
    echo.start()
    with connect(proxy) as client:
        assert ask(client, b"x") == b"x"


def test_new_clients_can_be_sent_to_another_server(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    assert ask(client, b"x") == b"x"
    with Echo() as other:
        proxy.redirect(*other.address)
        with connect(proxy) as second:
            assert ask(second, b"second") == b"second"
        assert ask(client, b"first") == b"first"
        assert (bytes(echo.heard), bytes(other.heard)) == (b"xfirst", b"second")


# Delay and drip.


def test_a_delay_is_a_latency_that_keeps_the_order(
    client: socket.socket, proxy: FlakyProxy
) -> None:
    proxy.delay(requests=0.2, replies=0.1)
    started = time.monotonic()
    for number in range(10):
        client.sendall(b"%d" % number)
        proxy.wait_for(lambda: proxy.received.requests == number + 1)  # noqa: B023
    assert read(client, 10) == b"0123456789"
    assert 0.3 <= time.monotonic() - started < 1.5  # side by side, not ten times 0.3 s


def test_a_delay_set_for_one_direction_leaves_the_other(
    client: socket.socket, proxy: FlakyProxy
) -> None:
    proxy.delay(requests=0.2)
    client.sendall(b"x")
    proxy.wait_for(lambda: proxy.received.requests == 1)
    assert proxy.passed.requests == 0
    proxy.delay(replies=60.0)
    proxy.wait_for(lambda: proxy.received.replies == 1)
    assert hears_nothing(client)
    proxy.delay(replies=0.0)
    assert read(client, 1) == b"x"


def test_the_end_is_delayed_as_well(client: socket.socket, proxy: FlakyProxy, echo: Echo) -> None:
    assert ask(client, b"x") == b"x"
    proxy.delay(requests=0.2)
    started = time.monotonic()
    client.shutdown(socket.SHUT_WR)
    assert read(client, 100) == b"bye"
    assert time.monotonic() - started >= 0.2


def test_replies_drip(client: socket.socket, proxy: FlakyProxy) -> None:
    proxy.drip(2, 0.05)
    started = time.monotonic()
    client.sendall(b"0123456789")
    pieces = []
    while sum(map(len, pieces)) < 10:
        pieces.append(client.recv(100))
    assert b"".join(pieces) == b"0123456789"
    assert max(map(len, pieces)) == 2
    assert time.monotonic() - started >= 0.2


def test_requests_drip_until_healed(client: socket.socket, proxy: FlakyProxy, echo: Echo) -> None:
    proxy.drip(1, 3600.0, direction="requests")
    client.sendall(b"0123456789")
    echo.wait_for(lambda: echo.heard == b"0")
    proxy.heal()
    assert read(client, 10) == b"0123456789"


def test_a_drip_of_nothing_is_refused(proxy: FlakyProxy) -> None:
    with pytest.raises(ValueError, match="count is 0"):
        proxy.drip(0, 1.0)


# Silence.


def test_held_requests_reach_the_server_after_resume(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    assert ask(client, b"x") == b"x"
    proxy.hold_requests()
    client.sendall(b"held")
    client.shutdown(socket.SHUT_WR)
    proxy.wait_for(lambda: proxy.received.requests == 5)
    assert (bytes(echo.heard), echo.ends) == (b"x", [])
    proxy.resume()
    assert read(client, 100) == b"heldbye"


def test_held_replies_reach_the_client_after_resume(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    proxy.hold_replies()
    client.sendall(b"held")
    proxy.wait_for(lambda: proxy.received.replies == 4)
    assert echo.heard == b"held"
    echo.restart()  # not even its end gets through
    assert hears_nothing(client)
    proxy.resume()
    assert read(client, 100) == b"held"


def test_hold_lets_nothing_pass_either_way(client: socket.socket, proxy: FlakyProxy) -> None:
    proxy.delay(replies=0.05)
    client.sendall(b"x")
    proxy.wait_for(lambda: proxy.received.replies == 1)
    proxy.hold()
    client.sendall(b"y")
    proxy.wait_for(lambda: proxy.received.requests == 2)
    passed = proxy.passed
    assert hears_nothing(client)
    assert proxy.passed == passed == (1, 0)
    proxy.heal()
    assert read(client, 2) == b"xy"


def test_a_client_that_dies_while_requests_are_held_is_not_told_on(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    assert ask(client, b"x") == b"x"
    proxy.hold_requests()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with connect(proxy) as other:  # all that happened before has been seen after this one
        other.sendall(b"y")
        proxy.wait_for(lambda: proxy.received.requests == 2)
    assert echo.ends == []
    proxy.resume()
    echo.wait_for(lambda: "reset" in echo.ends)


def test_a_hold_stops_reading_when_its_room_is_full() -> None:
    with Flood() as server, FlakyProxy(*server.address) as proxy:
        proxy.hold_replies()
        with connect(proxy) as client:
            proxy.wait_for(lambda: proxy.received.replies >= 256 * 1024)
            assert proxy.received.replies <= (256 + 64) * 1024
            proxy.resume()
            assert len(read(client, 1 << 20)) == 1 << 20


def test_a_held_connection_whose_client_is_gone_costs_no_cpu(proxy: FlakyProxy) -> None:
    proxy.hold()
    with connect(proxy) as closed, connect(proxy) as reset:
        closed.sendall(b"x")
        reset.sendall(b"y")
        proxy.wait_for(lambda: proxy.received.requests == 2)
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    used = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - used < 0.15


def test_what_was_held_can_be_dropped_by_a_cut(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    proxy.hold_replies()
    client.sendall(b"held")
    proxy.wait_for(lambda: proxy.received.replies == 4)
    assert proxy.cut() == 1
    assert client.recv(100) == b""


def test_not_a_byte_passes_after_hold_has_returned() -> None:
    with Flood() as server, FlakyProxy(*server.address) as proxy, contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(connect(proxy))
            threading.Thread(target=drain, args=(client,)).start()
        for _ in range(50):
            before = proxy.passed.replies
            proxy.wait_for(lambda: proxy.passed.replies > before)  # noqa: B023
            proxy.hold_replies()
            held = proxy.passed
            time.sleep(0.001)  # lets the others run
            assert proxy.passed == held
            proxy.resume()
        proxy.close()


def drain(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(1 << 20):
            pass


# Ends.


def test_a_cut_is_an_end_on_both_sides(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    with connect(proxy) as other:
        assert ask(client, b"x") == ask(other, b"x") == b"x"
        assert proxy.cut() == 2
        assert proxy.connections == (2, 0)
        assert client.recv(1) == other.recv(1) == b""
        echo.wait_for(lambda: echo.connections == (2, 0))
    with connect(proxy) as client:
        assert ask(client, b"again") == b"again"


def test_a_cut_is_no_reset_even_when_bytes_were_on_their_way(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    proxy.hold()
    client.sendall(b"x" * (1 << 17))
    proxy.wait_for(lambda: proxy.received.requests > 0)
    proxy.cut()
    assert client.recv(1) == b""
    echo.wait_for(lambda: echo.ends == ["closed"])


def test_a_cut_lets_a_slow_reader_have_what_has_passed() -> None:
    class Speaker(ThreadedServer):
        def handle(self, connection: socket.socket, peer: Peer) -> None:
            connection.sendall(b"x" * 100_000)
            self.ending.wait(60)

    with Speaker() as server, FlakyProxy(*server.address) as proxy, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(proxy.address)
        proxy.hold_requests()
        client.settimeout(20)
        client.sendall(b"y" * 340_000)  # more than the proxy reads while it holds
        proxy.wait_for(lambda: proxy.passed.replies == 100_000 and has_arrived(client))
        proxy.cut()
        assert len(read(client, 100_001)) == 100_000


def has_arrived(client: socket.socket) -> bool:
    """The other system has acknowledged all that was sent, whoever has read it."""
    return fcntl.ioctl(client, termios.TIOCOUTQ, b"1234") == b"\0\0\0\0"


def test_a_reset_is_a_reset_on_both_sides(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    assert ask(client, b"x") == b"x"
    assert proxy.cut(reset=True) == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    echo.wait_for(lambda: echo.ends == ["reset"])


def test_a_cut_hits_each_client_that_connected_before_it(proxy: FlakyProxy) -> None:
    for _ in range(50):
        with connect(proxy) as client:
            assert proxy.cut() == 1
            assert client.recv(1) == b""
    assert proxy.cut() == 0


def test_reset_after_lets_so_many_bytes_pass(proxy: FlakyProxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"x" * 100) == b"x" * 100
        proxy.reset_after(30)
        client.sendall(b"y" * 100)
        assert read(client, 30) == b"y" * 30
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert ask(client, b"z" * 100) == b"z" * 100


def test_reset_after_lets_a_slow_reader_have_all_of_it(proxy: FlakyProxy) -> None:
    size = 100_000
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(proxy.address)
        proxy.reset_after(size)
        client.sendall(b"x" * (2 * size))
        proxy.wait_for(lambda: proxy.passed.replies == size)
        assert len(read(client, size)) == size
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_reset_after_in_the_direction_of_requests(proxy: FlakyProxy, echo: Echo) -> None:
    proxy.reset_after(3, direction="requests", times=None)
    for round_number in (1, 2, 3):
        with connect(proxy) as client:
            client.sendall(b"abcdef")
            with pytest.raises(ConnectionResetError):
                read(client, 6)
        echo.wait_for(lambda: len(echo.ends) == round_number)  # noqa: B023
        assert echo.heard == b"abc" * round_number
    proxy.heal()
    with connect(proxy) as client:
        assert ask(client, b"abcdef") == b"abcdef"


def test_reset_after_nothing_resets_at_the_first_byte(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    proxy.reset_after(0)
    client.sendall(b"x")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert echo.heard == b"x"


def test_reset_after_hits_one_of_many(proxy: FlakyProxy) -> None:
    proxy.reset_after(50)
    resets: list[int] = []

    def work(number: int) -> None:
        with connect(proxy) as client:
            try:
                for _ in range(20):
                    if len(ask(client, b"x" * 10)) < 10:
                        raise ConnectionResetError
            except ConnectionError:
                resets.append(number)

    in_parallel(10, work)
    assert len(resets) == 1


# Newcomers.


def test_refused_clients_get_econnrefused_and_open_connections_live(
    client: socket.socket, proxy: FlakyProxy
) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    assert ask(client, b"x") == b"x"
    proxy.accept()
    with connect(proxy) as other:
        assert ask(other, b"back") == b"back"


def test_a_hanging_client_is_served_once_the_proxy_accepts(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    assert ask(client, b"x") == b"x"
    proxy.accept_and_hang()
    with connect(proxy) as hanging:
        hanging.sendall(b"anybody?")
        proxy.wait_for(lambda: proxy.connections.open == 2)
        assert ask(client, b"y") == b"y"
        assert echo.connections.accepted == 1
        assert hears_nothing(hanging)
        proxy.accept()
        assert read(hanging, 8) == b"anybody?"


def test_hanging_clients_can_be_cut(proxy: FlakyProxy) -> None:
    proxy.accept_and_hang()
    with connect(proxy) as client:
        assert proxy.cut() == 1
        assert client.recv(1) == b""


def test_restart_is_a_server_that_comes_back(client: socket.socket, proxy: FlakyProxy) -> None:
    assert ask(client, b"x") == b"x"
    proxy.restart()
    assert client.recv(1) == b""
    with connect(proxy) as client:
        assert ask(client, b"x") == b"x"


# One answer.


def test_a_lost_answer_was_an_executed_request(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    with proxy.lose_answer(lambda data: b"SET" in data) as loss:
        assert ask(client, b"GET x") == b"GET x"
        client.sendall(b"SET x")
        assert client.recv(100) == b""
        assert loss.lost.is_set()
    assert echo.heard == b"GET xSET x"
    assert (loss.request, loss.answer) == (b"GET xSET x", b"SET x")
    with connect(proxy) as client:
        assert ask(client, b"SET y") == b"SET y"


def test_a_lost_answer_can_end_in_a_reset(client: socket.socket, proxy: FlakyProxy) -> None:
    with proxy.lose_answer(then="reset"):
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_lost_answer_can_end_in_silence(client: socket.socket, proxy: FlakyProxy) -> None:
    with proxy.lose_answer(then="hold") as loss:
        client.sendall(b"lost")
        loss.wait()
    client.sendall(b"held")
    proxy.wait_for(lambda: proxy.received.replies == 8)
    assert hears_nothing(client)
    with connect(proxy) as other:
        assert ask(other, b"not my fault") == b"not my fault"
    proxy.resume()
    assert read(client, 4) == b"held"


def test_a_frame_in_pieces_is_seen_whole(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    with proxy.lose_answer(lambda data: b"\0\0\0\7version" in data) as loss:
        for sent, piece in ((3, b"\0\0\0"), (8, b"\7vers"), (11, b"ion")):
            client.sendall(piece)
            proxy.wait_for(lambda: proxy.passed.requests == sent)  # noqa: B023
        loss.wait()
    assert echo.heard == b"\0\0\0\7version"


def test_only_the_right_answer_is_waited_for() -> None:
    class Pings(ThreadedServer):
        """Says something else, in chunks of its own, before it answers."""

        proxy: FlakyProxy

        def handle(self, connection: socket.socket, peer: Peer) -> None:
            with connection.makefile("rb") as lines:
                for line in lines:
                    for reply in (b"ping\n", b"ping\n", b"done " + line):
                        came = self.proxy.received.replies + len(reply)
                        connection.sendall(reply)
                        self.proxy.wait_for(lambda: self.proxy.received.replies == came)  # noqa: B023

    with Pings() as server, FlakyProxy(*server.address) as proxy, connect(proxy) as client:
        server.proxy = proxy
        with proxy.lose_answer(answer=lambda data: b"done" in data) as loss:
            client.sendall(b"work\n")
            assert client.recv(100) == b""
        assert loss.answer == b"ping\nping\ndone work\n"


def test_an_answer_that_came_before_the_request_went_out_is_not_lost(
    client: socket.socket, proxy: FlakyProxy
) -> None:
    proxy.delay(replies=0.2)
    client.sendall(b"first")
    proxy.wait_for(lambda: proxy.received.replies == 5)
    with proxy.lose_answer(lambda data: b"second" in data, then="hold") as loss:
        client.sendall(b"second")
        loss.wait()
    assert loss.answer == b"second"
    proxy.resume()
    assert read(client, 5) == b"first"


def test_a_request_that_is_held_is_judged_when_it_goes_out(
    client: socket.socket, proxy: FlakyProxy, echo: Echo
) -> None:
    proxy.hold_requests()
    client.sendall(b"SET")
    proxy.wait_for(lambda: proxy.received.requests == 3)
    with proxy.lose_answer(lambda data: b"SET" in data):
        proxy.resume()
        assert client.recv(1) == b""
    assert echo.heard == b"SET"


def test_exactly_one_answer_is_lost_among_many_clients() -> None:
    with Journal() as server, FlakyProxy(*server.address) as proxy:
        lost: list[int] = []

        def work(number: int) -> None:
            client = connect(proxy)
            for turn in range(10):
                line = b"SET %d %d\n" % (number, turn)
                if ask_line(client, line) != b"done " + line:
                    lost.append(number)
                    client.close()
                    client = connect(proxy)
            client.close()

        for round_number in (1, 2, 3):
            with proxy.lose_answer(lambda data: b"SET" in data) as loss:
                in_parallel(20, work)
                assert loss.lost.is_set()
            assert len(lost) == round_number
            assert loss.answer == b"done " + loss.request
            assert len(server.lines) == len(set(server.lines)) * round_number
            assert len(server.lines) == 200 * round_number


def test_of_two_requests_that_match_at_once_one_is_lost(proxy: FlakyProxy) -> None:
    both = threading.Barrier(2, timeout=20)
    lost: list[int] = []

    def work(number: int) -> None:
        with connect(proxy) as client:
            if ask(client, b"SET") != b"SET":
                lost.append(number)

    with proxy.lose_answer(lambda data: both.wait() >= 0):
        in_parallel(2, work)
    assert len(lost) == 1


def ask_line(client: socket.socket, line: bytes) -> bytes:
    client.sendall(line)
    with client.makefile("rb") as lines:
        return lines.readline()


def test_a_block_without_a_matching_request_says_so(
    client: socket.socket, proxy: FlakyProxy
) -> None:
    loss = proxy.lose_answer(lambda data: b"SET" in data)
    with pytest.raises(AssertionError, match="no request matched"), loss:
        assert ask(client, b"GET") == b"GET"
    assert ask(client, b"SET") == b"SET"


def test_waiting_for_a_loss_ends(client: socket.socket, proxy: FlakyProxy) -> None:
    loss = proxy.lose_answer(answer=lambda data: b"never" in data)
    with pytest.raises(TimeoutError, match="no request matched yet"):
        loss.wait(timeout=0.01)
    client.sendall(b"x")
    proxy.wait_for(lambda: proxy.received.replies == 1)
    with pytest.raises(TimeoutError, match="its answer has not come yet"):
        loss.wait(timeout=0.01)


def test_one_loss_at_a_time(client: socket.socket, proxy: FlakyProxy) -> None:
    loss = proxy.lose_answer()
    with pytest.raises(RuntimeError, match="cancel"):
        proxy.lose_answer()
    loss.cancel()
    assert ask(client, b"x") == b"x"
    with proxy.lose_answer():
        client.sendall(b"x")
        assert client.recv(1) == b""


def test_a_predicate_that_raises_is_raised_at_close(echo: Echo) -> None:
    proxy = FlakyProxy(*echo.address).start()
    with connect(proxy) as client:
        proxy.lose_answer(lambda data: 1 / 0)
        client.sendall(b"x")
        assert client.recv(1) == b""
    with pytest.raises(ZeroDivisionError):
        proxy.close()


# Under load, and clean.


def test_faults_change_under_load_and_no_byte_is_lost_or_mixed_up(proxy: FlakyProxy) -> None:
    done = threading.Event()
    rounds = []

    def work(number: int) -> None:
        with connect(proxy) as client:
            for turn in itertools.count():
                line = b"%d:%d;" % (number, turn) * 50
                assert ask(client, line) == line
                if done.is_set():
                    rounds.append(turn)
                    return

    def faults() -> None:
        try:
            for turn in range(30):
                proxy.hold_requests()
                proxy.delay(requests=0.001 * (turn % 3), replies=0.002)
                proxy.resume()
                proxy.drip(400, 0.001, direction="requests")
                proxy.refuse()
                proxy.hold()
                proxy.heal()
                passed = proxy.passed.replies
                proxy.wait_for(lambda: proxy.passed.replies > passed)  # noqa: B023
        finally:
            done.set()

    with connect(proxy) as first:
        assert ask(first, b"x") == b"x"
        chaos = threading.Thread(target=faults)
        clients = threading.Thread(target=in_parallel, args=(8, work))
        clients.start()
        proxy.wait_for(lambda: proxy.connections.open == 9)
        chaos.start()
        chaos.join()
        clients.join()
    assert len(rounds) == 8


def test_random_ends_under_load_leave_a_proxy_that_works(proxy: FlakyProxy) -> None:
    done = threading.Event()
    answers: list[bytes] = []

    def work(number: int) -> None:
        while not done.is_set():
            with contextlib.suppress(ConnectionError), connect(proxy) as client:
                while not done.is_set() and (answer := ask(client, b"x" * 1000)):
                    answers.append(answer)

    clients = threading.Thread(target=in_parallel, args=(8, work))
    clients.start()
    for turn in range(40):
        reached = proxy.connections.accepted + 1
        if turn % 4 == 3:
            proxy.restart()
        elif turn % 4 == 2:
            proxy.reset_after(2500)
        else:
            proxy.cut(reset=bool(turn % 4))
        proxy.wait_for(lambda: proxy.connections.accepted >= reached)  # noqa: B023
    done.set()
    clients.join()
    assert all(answer == b"x" * len(answer) for answer in answers)
    with connect(proxy) as client:
        proxy.heal()
        assert ask(client, b"fine") == b"fine"


FAULTS: dict[str, Callable[[FlakyProxy], object]] = {
    "none": lambda proxy: None,
    "delay": lambda proxy: proxy.delay(requests=3600.0, replies=3600.0),
    "drip": lambda proxy: proxy.drip(1, 3600.0),
    "hold": lambda proxy: proxy.hold(),
    "hold requests": lambda proxy: proxy.hold_requests(),
    "hold replies": lambda proxy: proxy.hold_replies(),
    "cut": lambda proxy: proxy.cut(),
    "reset": lambda proxy: proxy.cut(reset=True),
    "reset after": lambda proxy: proxy.reset_after(150, times=None),
    "refuse": lambda proxy: proxy.refuse(),
    "hang": lambda proxy: proxy.accept_and_hang(),
    "lost answer": lambda proxy: proxy.lose_answer(),
    "held answer": lambda proxy: proxy.lose_answer(then="hold"),
    "unfinished answer": lambda proxy: proxy.lose_answer(answer=lambda data: False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_close_amid_the_fault_ends_all_at_once(fault: str, echo: Echo) -> None:
    with contextlib.ExitStack() as stack:
        proxy = FlakyProxy(*echo.address).start()
        clients = [stack.enter_context(connect(proxy)) for _ in range(3)]
        for client in clients:
            assert ask(client, b"before") == b"before"
        FAULTS[fault](proxy)
        with contextlib.suppress(ConnectionError):
            clients += [stack.enter_context(connect(proxy))]
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"x" * 100_000)
        started = time.monotonic()
        proxy.close()
        assert time.monotonic() - started < 4
        assert proxy.connections.open == 0
        for client in clients:
            with contextlib.suppress(ConnectionError):
                while client.recv(1 << 20):
                    pass
