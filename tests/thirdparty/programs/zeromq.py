"""pyzmq's asyncio: its sockets are edge-triggered descriptors, watched by add_reader()."""

import zmq
import zmq.asyncio


async def main():
    context = zmq.asyncio.Context()
    server = context.socket(zmq.REP)
    port = server.bind_to_random_port("tcp://127.0.0.1")

    async def serve():
        while (message := await server.recv_multipart()) != [b"end"]:
            await server.send_multipart([part.upper() for part in message])
        await server.send(b"ended")

    serving = asyncio.create_task(serve())
    client = context.socket(zmq.REQ)
    client.connect(f"tcp://127.0.0.1:{port}")
    for n in range(200):
        await client.send_multipart([b"part", b"x" * n * 100])
        assert await client.recv_multipart() == [b"PART", b"X" * n * 100]
    await client.send(b"end")
    assert await client.recv() == b"ended"
    await serving

    publisher, subscriber = context.socket(zmq.PUB), context.socket(zmq.SUB)
    publisher.bind("inproc://news")
    subscriber.connect("inproc://news")
    subscriber.subscribe(b"")
    await asyncio.sleep(0.01)
    for n in range(500):
        await publisher.send(b"%d" % n)
    assert [await subscriber.recv() for n in range(500)] == [b"%d" % n for n in range(500)]
    poller = zmq.asyncio.Poller()
    poller.register(subscriber, zmq.POLLIN)
    assert await poller.poll(1) == []
    context.destroy(linger=0)


loop = new_event_loop()
loop.run_until_complete(main())
loop.close()
