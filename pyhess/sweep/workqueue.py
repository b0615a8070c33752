"""Which cells may run, which come first, and which go together."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator

from .plan import Cell

#: Most cells of a batch, and most parameters of them together.
_MOST_CELLS, _MOST_BYTES = 64, 2**26


class WorkQueue:
    """Cells in order of what hangs on them: the predicted seconds of the cell and of the longest chain that waits for it."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        """``cells`` are to be done; those of them whose parents are among ``cells`` too wait for them."""
        todo = {cell.key: cell for cell in cells}
        self._children: dict[str, list[Cell]] = {}
        for cell in todo.values():
            if cell.parent in todo:
                self._children.setdefault(str(cell.parent), []).append(cell)
        self._weight: dict[str, float] = {}
        for cell in reversed(todo.values()):  # a plan has parents before their children
            below = max((self._weight[child.key] for child in self._children.get(cell.key, ())), default=0.0)
            self._weight[cell.key] = cell.predicted_seconds + below
        self._ready: list[tuple[float, int, Cell]] = []
        self._suspects: deque[list[Cell]] = deque()
        self._unfinished = dict(todo)
        self._waiting = 0.0
        self._left = sum(cell.predicted_seconds for cell in todo.values())
        for cell in todo.values():
            if cell.parent not in todo:
                self.put(cell)

    def __iter__(self) -> Iterator[Cell]:
        """Cells without a result."""
        return iter(self._unfinished.values())

    def put(self, cell: Cell) -> None:
        """Make a cell ready."""
        self._waiting += cell.predicted_seconds
        heapq.heappush(self._ready, (-self._weight[cell.key], cell.position, cell))

    def put_suspects(self, cells: list[Cell]) -> None:
        """Cells one of which may end its worker: they go apart from others, in halves if there are several."""
        half = (len(cells) + 1) // 2
        for part in (cells[:half], cells[half:]):
            if part:
                self._suspects.append(part)

    def finish(self, cell: Cell) -> None:
        """A cell has a result: its children become ready."""
        self._unfinished.pop(cell.key, None)
        self._left -= cell.predicted_seconds
        for child in self._children.get(cell.key, ()):
            self.put(child)

    def take_suspects(self) -> list[Cell]:
        """The next suspects, or none."""
        return self._suspects.popleft() if self._suspects else []

    def take(self, seconds: float, ratio: float, workers: int) -> list[Cell]:
        """The next cells that take about so long, at least one if any is ready; fewer when little is left to share out."""
        seconds = min(seconds, ratio * self._waiting / (2.0 * workers))
        batch: list[Cell] = []
        total, size = 0.0, 0.0
        while self._ready and len(batch) < _MOST_CELLS:
            cell = self._ready[0][2]
            total += ratio * cell.predicted_seconds
            size += cell.bytes
            if batch and (total > seconds or size > _MOST_BYTES):
                break
            batch.append(heapq.heappop(self._ready)[2])
            self._waiting = self._waiting - cell.predicted_seconds if self._ready else 0.0
        return batch

    def has_children(self, cell: Cell) -> bool:
        """Whether others wait for it."""
        return cell.key in self._children

    @property
    def suspects(self) -> int:
        """Batches of suspects."""
        return len(self._suspects)

    @property
    def predicted_left(self) -> float:
        """Predicted seconds of everything unfinished."""
        return max(0.0, self._left)

    def longest_chain(self) -> float:
        """Predicted seconds of the longest chain that is left to begin."""
        return -self._ready[0][0] if self._ready else 0.0

    @property
    def unfinished(self) -> int:
        """Cells without a result."""
        return len(self._unfinished)
