"""In which order, and when, descriptors are told: as the kernel tells, and the reader first."""

import asyncio
import contextlib
import os
import socket

import pytest

from tests.support import turns, until


@contextlib.contextmanager
def pairs(count):
    made = [socket.socketpair() for _ in range(count)]
    try:
        for one, other in made:
            one.setblocking(False)
            other.setblocking(False)
        yield made
    finally:
        for one, other in made:
            one.close()
            other.close()


@pytest.mark.parametrize("count", [2, 6, 70, 140, 300])
def test_readers_in_the_order_of_the_data(run, loop, count):
    """Also when there are more than libev asks the kernel for at first: all in one iteration."""
    order = []
    iterations = []

    async def main():
        with pairs(count) as made:
            for number, (one, _) in enumerate(made):
                loop.add_reader(one, read, number, one)
            await asyncio.sleep(0.001)
            for _ in range(3):
                expected = [*range(1, count, 2), *range(0, count, 2)]
                order.clear()
                iterations.clear()
                loop.call_soon(iteration, iterations)
                for number in expected:
                    made[number][1].send(b"x")
                await until(lambda: len(order) == count)
                assert order == expected
            for one, _ in made:
                loop.remove_reader(one)

    def iteration(iterations):
        iterations.append(1)

    def read(number, one):
        order.append(number)
        one.recv(1)

    run(main())


def test_all_of_a_crowd_in_one_iteration(run, loop):
    """As many as there are, whatever libev's first array has room for."""
    turn = 0
    seen = []

    def spin():
        nonlocal turn
        turn += 1
        if len(seen) < 200:
            loop.call_soon(spin)

    async def main():
        with pairs(200) as made:
            for number, (one, other) in enumerate(made):
                other.send(b"x")
                loop.add_reader(one, lambda one=one: (one.recv(1), seen.append(turn)))
            spin()
            await until(lambda: len(seen) == 200)
            for one, _ in made:
                loop.remove_reader(one)

    run(main())
    assert len(set(seen)) == 1


@pytest.mark.parametrize("first", ["reader", "writer"])
@pytest.mark.parametrize("known", [False, True], ids=["new", "watched before"])
def test_reader_before_writer(run, loop, first, known):
    order = []

    async def main():
        with pairs(3) as made:
            for number, (one, other) in enumerate(made):
                if first == "reader":
                    loop.add_reader(one, told, "reader", number, one)
                    if known:
                        await turns(2)
                    loop.add_writer(one, told, "writer", number, one)
                else:
                    loop.add_writer(one, int)
                    if known:
                        await turns(2)
                    loop.add_writer(one, told, "writer", number, one)
                    loop.add_reader(one, told, "reader", number, one)
                other.send(b"x")
            await until(lambda: len(order) == 6)

    def told(which, number, sock):
        order.append((number, which))
        (loop.remove_reader if which == "reader" else loop.remove_writer)(sock)

    run(main())
    for number in range(3):
        mine = [which for n, which in order if n == number]
        if not (known and first == "reader"):  # else the writer is told before there is data
            assert mine == ["reader", "writer"]


def test_listener_and_its_clients(run, loop):
    order = []

    async def main():
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
            listener.setblocking(False)
            loop.add_reader(
                listener, lambda: (order.append("accept"), loop.remove_reader(listener))
            )
            await asyncio.sleep(0.001)
            for number in range(6):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client.connect(listener.getsockname())
                loop.add_writer(
                    client, lambda n=number, c=client: (order.append(n), loop.remove_writer(c))
                )
            await until(lambda: len(order) == 7)

    run(main())
    assert order == ["accept", *range(6)]


def test_transports_in_the_order_of_the_data(run, loop):
    order = []

    class Protocol(asyncio.Protocol):
        def __init__(self, number):
            self.number = number

        def data_received(self, data):
            order.append(self.number)

    async def main():
        with pairs(8) as made:
            transports = []
            for number, (one, _) in enumerate(made):
                transport, _ = await loop.create_connection(
                    lambda n=number: Protocol(n), sock=one.dup()
                )
                transports.append(transport)
            await asyncio.sleep(0.001)
            expected = [3, 1, 4, 0, 5, 2, 6, 7]
            for number in expected:
                made[number][1].send(b"x")
            await until(lambda: len(order) == 8)
            assert order == expected
            for transport in transports:
                transport.close()
            await turns(3)

    run(main())


@pytest.mark.parametrize("how", ["remove", "replace", "both"])
def test_reader_that_ends_another_of_the_same_poll(run, loop, how):
    order = []

    async def main():
        with pairs(3) as made:
            for number, (one, _) in enumerate(made):
                loop.add_reader(one, told, made, number)
            await asyncio.sleep(0.001)
            for _, other in made:
                other.send(b"x")
            await until(lambda: 2 in order)
            if how == "replace":
                await until(lambda: "new" in order)
            for one, _ in made:
                loop.remove_reader(one)

    def told(made, number):
        order.append(number)
        made[number][0].recv(1)
        second = made[1][0]
        if number == 0 and how in ("remove", "both"):
            loop.remove_reader(second)
        if number == 0 and how in ("replace", "both"):
            loop.add_reader(second, lambda: (order.append("new"), second.recv(1)))
            if how == "both":
                loop.remove_reader(second)

    run(main())
    assert order == [0, 2, "new"] if how == "replace" else order == [0, 2]


def test_what_a_broken_run_leaves(impl):
    """An exception that leaves the loop in the first of three readers: the others are not lost."""
    loop = impl.new_event_loop()
    order = []
    with pairs(3) as made:

        def told(number):
            order.append(number)
            made[number][0].recv(1)
            loop.remove_reader(made[number][0])
            if number == 0:
                raise KeyboardInterrupt
            if number == 2:
                loop.stop()

        for number, (one, other) in enumerate(made):
            loop.add_reader(one, told, number)
            other.send(b"x")
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert order == [0]
        loop.run_forever()
        assert order == [0, 1, 2]
        loop.close()


def test_closed_after_a_broken_run(impl):
    loop = impl.new_event_loop()
    with pairs(2) as made:

        def told():
            raise KeyboardInterrupt

        for one, other in made:
            loop.add_reader(one, told)
            other.send(b"x")
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.close()


# -- when -----------------------------------------------------------------------------------------


def spinner(loop):
    """A function that tells how many iterations it is ago that the loop became busy."""
    count = 0
    stopped = False

    def spin():
        nonlocal count
        count += 1
        if not stopped:
            loop.call_soon(spin)

    def stop():
        nonlocal stopped
        stopped = True
        return count

    loop.call_soon(spin)
    return stop


@pytest.mark.parametrize("event", ["reader", "writer"])
def test_new_descriptor_is_looked_at_in_the_next_iteration(run, loop, event):
    async def main():
        for _ in range(5):
            with pairs(1) as [(one, other)]:
                other.send(b"x")
                told = loop.create_future()
                stop = spinner(loop)
                await turns(3)
                remove = loop.remove_reader if event == "reader" else loop.remove_writer

                def ready(one=one, told=told, stop=stop, remove=remove):
                    remove(one)
                    told.set_result(stop())

                before = []
                loop.call_soon(lambda: before.append(1))
                (loop.add_reader if event == "reader" else loop.add_writer)(one, ready)
                assert await told == 4

    run(main())


def test_data_of_a_new_pipe_comes_at_once(run, loop):
    class Protocol(asyncio.Protocol):
        def __init__(self):
            self.got = loop.create_future()

        def data_received(self, data):
            self.got.set_result((data, self.stop()))

    async def main():
        for _ in range(5):
            reading, writing = os.pipe()
            os.write(writing, b"abc")
            transport, protocol = await loop.connect_read_pipe(
                Protocol, os.fdopen(reading, "rb", buffering=0)
            )
            protocol.stop = spinner(loop)
            data, iterations = await protocol.got
            assert (data, iterations) == (b"abc", 0)
            transport.close()
            os.close(writing)
            await turns(2)

    run(main())


def test_resumed_transport_is_looked_at_in_the_next_iteration(run, loop):
    class Protocol(asyncio.Protocol):
        got = None

        def data_received(self, data):
            self.got.set_result(self.stop())

    async def main():
        with pairs(1) as [(one, other)]:
            transport, protocol = await loop.create_connection(Protocol, sock=one.dup())
            transport.pause_reading()
            await turns(2)
            other.send(b"x")
            protocol.got = loop.create_future()
            protocol.stop = spinner(loop)
            await turns(2)
            transport.resume_reading()
            assert await protocol.got == 3
            transport.close()
            await turns(2)

    run(main())
