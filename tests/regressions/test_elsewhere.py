"""Reports whose tests stand beside the others of their subject: here they have their numbers."""

from tests.process import test_fork
from tests.unit.loop import test_readers, test_timers
from tests.unit.loop.test_readers import pair
from tests.unit.net import test_datagram, test_server
from tests.unit.net.test_datagram import counts, endpoint, full, peer
from tests.unit.python import test_policy
from tests.unit.tasks import test_task
from tests.unit.tasks.test_task import make

__all__ = ["counts", "endpoint", "full", "make", "pair", "peer"]

# 13: timers that are early, delays without an end, when() of a timer that has fired
test_13_never_early = test_timers.test_never_early
test_13_sleep_is_never_short = test_timers.test_sleep_is_never_short
test_13_blocked_loop = test_timers.test_blocking_callback_does_not_shorten_later_timers
test_13_huge_delay = test_timers.test_huge_delay_never_fires
test_13_when = test_timers.test_when_after_fire
test_13_type = test_timers.test_isinstance

# 15: no descriptor left at accept
test_15_descriptor_table_full = test_server.test_descriptor_table_full

# 17: servers that hang when they are closed
test_17_life_cycle = test_server.test_life_cycle
test_17_close_during_serve_forever = test_server.test_close_ends_serve_forever
test_17_cancelled_with_a_live_client = test_server.test_serve_forever_cancelled_with_a_live_client

# 21: a forked child disturbs its parent
test_21_parent_keeps_its_events = test_fork.test_parent_keeps_its_events
test_21_inherited_loop = test_fork.test_inherited_loop_in_the_child_works_or_raises
test_21_child_leaves_by_system_exit = test_fork.test_child_leaves_by_system_exit

# 24: tasks, threads and the collector
test_24_all_tasks_while_tasks_die = test_task.test_all_tasks_from_another_thread_while_tasks_die
test_24_resurrection = test_task.test_resurrection_in_del
test_24_storm_of_collections = test_task.test_gc_storm

# 25: what other projects assume of tasks
test_25_waiter_that_refuses = test_task.test_cancel_with_a_waiter_that_refuses
test_25_cancel_races_with_a_result = test_task.test_cancel_between_result_and_wake_up
test_25_must_cancel = test_task.test_must_cancel_is_what_libraries_expect

# next in line
test_next_udp_refused = test_datagram.test_refused
test_next_udp_empty = test_datagram.test_empty_datagram_received
test_next_udp_buffer_size = test_datagram.test_buffer_size_comes_back_to_zero
test_next_nonblocking_flag = test_readers.test_blocking_flag_untouched
test_next_unlink = test_server.test_unix_cleanup
test_next_warnings_at_import = test_policy.test_import_and_use_never_warn
test_next_libev_flags = test_fork.test_libev_flags_are_ignored


def test_each_report_has_a_name(request):
    """1 to 25 and the next in line, none forgotten."""
    folder = request.path.parent
    names = "\n".join(path.read_text() for path in folder.glob("test_*.py"))
    for number in [*(f"{number:02}" for number in range(1, 26)), "next"]:
        assert f"test_{number}_" in names
