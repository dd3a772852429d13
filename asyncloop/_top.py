"""`python -m asyncloop top` as a view of the whole terminal, by the package textual (an extra)."""

from functools import partial
from typing import Any

from textual.app import App
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Header, Static

from ._command import Trouble
from ._ps import LOOP_COLUMNS, TASK_COLUMNS, Shown, Watch

__all__ = ["Top"]


class Top(App[str]):
    """Loops, the last stall, tasks, and what the chosen one waits for. Its result: why it ended."""

    CSS = """
    #loops { height: auto; max-height: 40%; }
    #stall { height: auto; max-height: 30%; color: $warning; }
    #tasks { height: 1fr; }
    #chain { height: auto; max-height: 30%; border-top: solid $primary; }
    """
    BINDINGS = [
        ("q", "quit", "Quit"),
        ("ctrl+c", "quit", "Quit"),
        ("p", "pause", "Pause"),
    ]

    def __init__(self, watch: Watch, delay: float) -> None:
        super().__init__()
        self.title = f"asyncloop top {watch.pid}"
        self._watch = watch
        self._delay = delay
        self._looks = self._paused = False
        self._chains: dict[str, str] = {}

    def compose(self) -> Any:
        """The parts, from top to bottom."""
        yield Header()
        yield DataTable(id="loops", cursor_type="none", zebra_stripes=True)
        yield Static(id="stall", markup=False)
        yield DataTable(id="tasks", cursor_type="row", zebra_stripes=True)
        with VerticalScroll(id="chain"):
            yield Static(id="places", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one("#loops", DataTable).add_columns(*LOOP_COLUMNS)
        self.query_one("#tasks", DataTable).add_columns(*TASK_COLUMNS)
        self.query_one("#tasks", DataTable).focus()
        self.set_interval(self._delay, self._tick)
        self._tick()

    def action_pause(self) -> None:
        """What is shown stays, until this is called again."""
        self._paused = not self._paused
        self.sub_title = "paused" if self._paused else ""

    def on_data_table_row_highlighted(self, event: Any) -> None:
        """Another task is chosen."""
        if event.data_table.id == "tasks":
            self._show_chain(event.row_key.value)

    def _tick(self) -> None:
        # A process that does not answer takes seconds: it is asked once at a time.
        if not self._looks and not self._paused:
            self._looks = True
            self.run_worker(self._look, thread=True, exit_on_error=False)

    def _look(self) -> None:
        """In a thread."""
        try:
            self.call_from_thread(self._show, self._watch.look())
        except Trouble as trouble:
            self.call_from_thread(partial(self.exit, f"{trouble}"))
        finally:
            self._looks = False

    def _show(self, shown: Shown) -> None:
        loops = self.query_one("#loops", DataTable)
        loops.clear()
        loops.add_rows(shown.loops)
        self.query_one("#stall", Static).update("\n".join(shown.stalls))
        table = self.query_one("#tasks", DataTable)
        chosen = self._chosen(table)
        table.clear()
        self._chains = {task.key: task.chain for task in shown.tasks}
        for task in shown.tasks:
            table.add_row(*task.cells, key=task.key)
        if chosen in self._chains:
            table.move_cursor(row=table.get_row_index(chosen))
        self._show_chain(self._chosen(table))

    def _chosen(self, table: Any) -> str:
        if not table.is_valid_row_index(table.cursor_row):
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def _show_chain(self, key: str) -> None:
        self.query_one("#places", Static).update(self._chains.get(key, ""))
