"""Trio as the guest of asyncio's loop: both do their work in one thread."""

import trio


async def echo(stream):
    async for data in stream:
        await stream.send_all(data)


async def guest(told):
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            lambda task_status: trio.serve_tcp(echo, 0, host="127.0.0.1", task_status=task_status)
        )
        async with await trio.testing.open_stream_to_socket_listener(listener) as stream:
            for n in range(20):
                await stream.send_all(b"%d" % n)
                assert await stream.receive_some() == b"%d" % n
        told.append("echoed")
        process = await trio.run_process(["true"])
        told.append(process.returncode)
        await trio.to_thread.run_sync(time.sleep, 0.001)
        with trio.move_on_after(0.01):
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    return "guest's result"


async def host():
    import trio.testing

    told = []
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    trio.lowlevel.start_guest_run(
        guest,
        told,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=done.set_result,
    )
    ticks = 0
    while not done.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert done.result().unwrap() == "guest's result"
    assert told == ["echoed", 0]
    assert ticks > 5


warnings.simplefilter("error")  # trio warns when it finds somebody at the wakeup descriptor
for _ in range(2):
    loop = new_event_loop()
    loop.run_until_complete(host())
    loop.close()
