"""freezegun: the clocks of a program stand still, asyncio's own only if the program wants that."""

import calendar
import datetime

from freezegun import freeze_time

asyncio.new_event_loop = new_event_loop  # freezegun asks it for the class of loops
DAY = "2031-05-06 07:08:09"


async def today():
    before = datetime.datetime.now()
    await asyncio.sleep(0.001)
    after = datetime.datetime.now()
    assert before == after and str(before) == DAY
    with freeze_time("2032-01-01"):
        await asyncio.sleep(0)
        assert datetime.date.today().year == 2032
    assert time.time() == calendar.timegm((2031, 5, 6, 7, 8, 9))


loop = new_event_loop()
with freeze_time(DAY, real_asyncio=True):
    loop.run_until_complete(today())
    made_there = new_event_loop()
    made_there.run_until_complete(today())
    made_there.close()
loop.run_until_complete(asyncio.sleep(0.001))


async def moved(frozen):
    """A timer follows the frozen clock, which the program moves by hand."""
    told = []
    loop = asyncio.get_running_loop()
    started = loop.time()
    loop.call_later(3600, told.append, "an hour later")
    await asyncio.sleep(0)
    assert loop.time() == started and not told
    frozen.tick(3601)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert loop.time() == started + 3601
    assert told == ["an hour later"]


with freeze_time(DAY) as frozen:
    loop.run_until_complete(moved(frozen))
loop.close()
