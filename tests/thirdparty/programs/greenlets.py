"""A loop that runs in a greenlet, as eventlet's hub: others use it in the middle of a callback.

A greenlet that is left has its part of the C stack copied away, and others write there.
"""

import asyncio
import os
import socket

import greenlet


def fill_the_stack(depth=40):
    """Frames of C, where those of the loop were."""
    if depth:
        sorted([1], key=lambda x: fill_the_stack(depth - 1) or x)


def a_program_beside_the_hub():
    loop = new_event_loop()
    main = greenlet.getcurrent()
    seen = []

    async def hub():
        for i in range(5):
            seen.append(("hub", i, main.switch()))
            await asyncio.sleep(0)
        return "done"

    ours, theirs = socket.socketpair()
    runner = greenlet.greenlet(lambda: loop.run_until_complete(hub()))
    runner.switch()
    step = 0
    while not runner.dead:
        fill_the_stack()
        assert loop.is_running()
        loop.call_soon(seen.append, ("soon", step))
        loop.call_later(0, seen.append, ("timer", step))
        loop.add_reader(ours, lambda: seen.append(("read", ours.recv(1))))
        theirs.send(b"x")
        loop.create_future().set_result(None)
        fill_the_stack()
        result = runner.switch(step)
        step += 1
    assert result == "done"
    assert [what[1:] for what in seen if what[0] == "hub"] == [(i, i) for i in range(5)], seen
    assert [what[1] for what in seen if what[0] == "soon"] == [0, 1, 2, 3, 4], seen
    assert ("read", b"x") in seen
    assert not loop.is_running()
    loop.close()
    ours.close()
    theirs.close()


def what_leaves_the_loop():
    loop = new_event_loop()
    main = greenlet.getcurrent()
    outcome = []

    def interrupted():
        main.switch()
        raise KeyboardInterrupt

    def run():
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            outcome.append("interrupted")

    loop.call_soon(interrupted)
    runner = greenlet.greenlet(run)
    runner.switch()
    fill_the_stack()
    assert loop.is_running()
    runner.switch()
    assert outcome == ["interrupted"] and runner.dead and not loop.is_running()

    loop.call_soon(main.switch)
    runner = greenlet.greenlet(loop.run_forever)
    runner.switch()
    fill_the_stack()
    loop.stop()
    fill_the_stack()
    runner.switch()
    assert runner.dead and not loop.is_running()
    loop.close()


def a_run_ends_before_the_one_inside():
    loop = new_event_loop()
    main = greenlet.getcurrent()
    seen = []

    def inside():
        seen.append("inside")
        main.switch()
        seen.append("inside again")

    def outside():
        seen.append("outside")
        main.switch()
        seen.append("outside again")
        loop.stop()

    handle = loop.call_soon(inside)
    by_hand = greenlet.greenlet(lambda: (handle._run(), handle.cancel()))
    runner = greenlet.greenlet(loop.run_forever)
    by_hand.switch()
    handle.cancel()
    loop.call_soon(outside)
    runner.switch()
    fill_the_stack()
    runner.switch()
    fill_the_stack()
    assert runner.dead
    by_hand.switch()
    assert by_hand.dead and not loop.is_running()
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == ["inside", "outside", "outside again", "inside again"], seen
    loop.close()


def what_leaves_a_run_while_another_waits_inside():
    loop = new_event_loop()
    main = greenlet.getcurrent()
    outcome = []

    def interrupted():
        main.switch()
        raise KeyboardInterrupt

    def run(function):
        try:
            function()
        except KeyboardInterrupt:
            outcome.append("interrupted")
        else:
            outcome.append("ended")

    loop.call_soon(interrupted)
    handle = loop.call_later(1000, main.switch)
    runner, by_hand = greenlet.greenlet(run), greenlet.greenlet(run)
    runner.switch(loop.run_forever)
    by_hand.switch(handle._run)
    fill_the_stack()
    loop.call_later(1, loop.stop)
    runner.switch()
    assert outcome == ["interrupted"] and runner.dead, outcome
    by_hand.switch()
    assert outcome == ["interrupted", "ended"] and by_hand.dead, outcome
    loop.close()


def a_child_of_fork():
    loop = new_event_loop()
    loop.call_soon(greenlet.getcurrent().switch)
    runner = greenlet.greenlet(loop.run_forever)
    runner.switch()
    fill_the_stack()
    child = os.fork()
    loop.stop()
    runner.switch()
    loop.close()
    if child == 0:
        os._exit(0 if runner.dead else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert runner.dead


a_program_beside_the_hub()
what_leaves_the_loop()
a_run_ends_before_the_one_inside()
what_leaves_a_run_while_another_waits_inside()
a_child_of_fork()
