"""Pretty-printers of gdb for the core: Loop, Future, Task, and the ring of what runs next.

    (gdb) source tools/gdb/asyncloop_gdb.py
    (gdb) print *loop
    (gdb) print *(struct Task *)0x7ffff6a68110

For builds with debug information: ASYNCLOOP_DEBUG=1, or -g in CFLAGS. Nothing of the program is run
for a text; how strings and coroutines are laid out is taken from the debug information as well.
"""

import gdb
import gdb.printing

FUTURE_STATES = ("not initialised", "pending", "cancelled", "finished", "failed")
READY_KINDS = ("handle", "task", "foreign", "done")
SHOWN = 200  # items of a ring


def text(pointer):
    """A Python string, if it is all ASCII as names mostly are; or None."""
    try:
        head = gdb.lookup_type("PyASCIIObject")
        string = pointer.cast(head.pointer())
        if not (string["state"]["compact"] and string["state"]["ascii"]):
            return None
        data = (string + 1).cast(gdb.lookup_type("char").pointer())
        return data.string("ascii", length=int(string["length"]))
    except (gdb.error, UnicodeError):
        return None


def type_name(pointer):
    """The name of an object's type."""
    try:
        return pointer.cast(gdb.lookup_type("PyObject").pointer())["ob_type"]["tp_name"].string()
    except gdb.error:
        return "?"


def shown(pointer):
    """An object in a few words."""
    if not pointer:
        return "NULL"
    return f"<{type_name(pointer)} at {int(pointer):#x}>"


def flag(value):
    """A bool, or a flag that other threads look at (struct flag)."""
    if value.type.strip_typedefs().code == gdb.TYPE_CODE_STRUCT:
        value = value[value.type.fields()[0]]
    return bool(value)


def length_of_list(pointer):
    try:
        return int(pointer.cast(gdb.lookup_type("PyVarObject").pointer())["ob_size"])
    except gdb.error:
        return 0


class Ring:
    """struct ready: pointers with their kind in the low bits."""

    def __init__(self, value):
        self.value = value
        self.length = int(value["tail"]) - int(value["head"])

    def to_string(self):
        room = int(self.value["mask"]) + 1 if self.value["items"] else 0
        return f"ring of {self.length}, room for {room}"

    def items(self):
        for i in range(min(self.length, SHOWN)):
            place = (int(self.value["head"]) + i) & int(self.value["mask"])
            item = int(self.value["items"][place])
            pointer = gdb.Value(item & ~3).cast(gdb.lookup_type("PyObject").pointer())
            yield READY_KINDS[item & 3], pointer

    def children(self):
        for i, (kind, pointer) in enumerate(self.items()):
            yield f"[{i}]", f"{kind} {shown(pointer)}"

    def display_hint(self):
        return None


class Future:
    def __init__(self, value):
        self.value = value

    def state(self):
        return FUTURE_STATES[int(self.value["future_state"])]

    def waiters(self):
        later = self.value["callbacks"]
        return bool(self.value["callback0"]) + (length_of_list(later) if later else 0)

    def to_string(self):
        return f"Future, {self.state()}, {self.waiters()} waiting"

    def children(self):
        for name in ("loop", "outcome", "callback0"):
            yield name, shown(self.value[name])
        if self.state() == "failed":
            yield "exception_traceback", shown(self.value["exception_traceback"])
        yield "log_traceback", str(flag(self.value["log_traceback"]))


class Task:
    def __init__(self, value):
        self.value = value
        self.future = Future(value["future"])

    def name(self):
        if flag(self.value["named"]):
            return text(self.value["name"]) or "?"
        return f"Task-{int(self.value['number'])}"

    def coroutine(self):
        """The name of the coroutine's function, if it is one of Python's own."""
        pointer = self.value["coro"]
        try:
            coroutine = pointer.cast(gdb.lookup_type("PyCoroObject").pointer())
            if type_name(pointer) == "coroutine":
                return text(coroutine["cr_qualname"])
        except gdb.error:
            pass
        return None

    def to_string(self):
        return f"Task {self.name()!r}, {self.future.state()}, {self.future.waiters()} waiting"

    def children(self):
        name = self.coroutine()
        yield "coro", shown(self.value["coro"]) + (f" of {name}()" if name else "")
        yield "waiter", shown(self.value["waiter"])
        yield "loop", shown(self.value["future"]["loop"])
        yield "outcome", shown(self.value["future"]["outcome"])
        yield "must_cancel", str(flag(self.value["must_cancel"]))


class Loop:
    def __init__(self, value):
        self.value = value
        self.ring = Ring(value["ready"])

    def to_string(self):
        value = self.value
        if flag(value["closed"]):
            state = "closed"
        elif value["run"]:
            state = "running"
        else:
            state = "open"
        timers = int(value["timers"]["length"])
        return f"Loop, {state}, {self.ring.length} ready, {timers} timers"

    def children(self):
        yield "ready", self.value["ready"]
        yield "current_task", shown(self.value["current_task"])
        yield "polls", int(self.value["polls"])
        yield "debug", str(flag(self.value["debug"]))


def printers():
    collection = gdb.printing.RegexpCollectionPrettyPrinter("asyncloop")
    for name, printer in (("ready", Ring), ("Future", Future), ("Task", Task), ("Loop", Loop)):
        collection.add_printer(name, f"^{name}$", printer)
    return collection


gdb.printing.register_pretty_printer(None, printers(), replace=True)
