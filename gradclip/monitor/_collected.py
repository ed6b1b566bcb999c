"""`Collected`: the rows of a monitor once they are on the host: in a window, in totals, and written."""

from collections.abc import Mapping, Sequence
from typing import Any

from gradclip.monitor._row import Known, Row, logged
from gradclip.monitor._summary import Summary, summary
from gradclip.monitor._totals import Totals
from gradclip.monitor._transfer import Transfer
from gradclip.monitor._window import Window
from gradclip.monitor._writers import writers_of


class Collected:
    """Takes rows, keeps the last ones and what is known of all, and writes them.

    Parameters
    ----------
    window : int
        The least number of rows to keep.
    writers : str, Path, object, or sequence of these
        As for `gradclip.monitor.NormMonitor`.
    """

    def __init__(self, window: int, writers: object) -> None:
        self._writers = writers_of(writers)
        self._transfer: Transfer | None = None
        self.last: Known | None = None
        self.totals = Totals()
        self.window = Window(window, self.totals.leave)

    def begin(self, rows: Sequence[Row]) -> None:
        """Take the rows whose copy to the host was started before, and start that of new ones."""
        self.finish()
        if rows:
            self._transfer = Transfer(rows)
            if self._transfer.is_done:
                self.finish()

    def finish(self) -> None:
        """Wait for the rows whose copy was started; then count, keep and write them."""
        transfer, self._transfer = self._transfer, None
        if transfer is None:
            return
        rows = transfer.finish()
        self.totals.add(rows)
        self.window.extend(rows)
        self.last = rows[-1]
        for writer in self._writers:
            writer.write([(row.step, logged(row)) for row in rows])

    def summary(self) -> Summary:
        """Return the summary of all rows."""
        return self.totals.widened(summary(self.window.history()))

    def state_dict(self) -> dict[str, Any]:
        """Return the window and the totals as plain numbers."""
        return {"window": self.window.state_dict(), "totals": self.totals.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self._transfer, self.last = None, None
        self.window.load_state_dict(state_dict["window"])
        self.totals.load_state_dict(state_dict["totals"])
