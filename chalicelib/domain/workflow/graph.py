"""Which task leads to which: where a workflow begins, what waits for what, and which edges close loops.

Everything is linear in the number of edges and iterative: a thousand tasks in a row are a usual workflow, and more
than Python's stack takes.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

from chalicelib.domain.workflow.definition import Definition, Task


class Graph:
    """The graph of a definition's tasks. A target that is no task of it leads nowhere.

    ``entries`` are the tasks that nothing leads to, in listed order; of a loop that nothing outside leads into, the
    task that is listed first is one.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._tasks = {task.name: task for task in definition.tasks}
        self._order = {task.name: position for position, task in enumerate(definition.tasks)}
        self._successors: dict[str, tuple[str, ...]] = {}
        inbound: dict[str, set[str]] = {name: set() for name in self._order}
        for task in definition.tasks:
            targets = dict.fromkeys(name for transition in task.next for name in transition.do if name in self._order)
            self._successors[task.name] = tuple(targets)
            for target in targets:
                inbound[target].add(task.name)
        self._inbound = {name: frozenset(sources) for name, sources in inbound.items()}

    @cached_property
    def entries(self) -> tuple[str, ...]:
        entered = {
            self._components[target]
            for source, targets in self._successors.items()
            for target in targets
            if self._components[source] != self._components[target]
        }
        first: dict[int, str] = {}
        for name in self._order:
            first.setdefault(self._components[name], name)
        return tuple(name for component, name in first.items() if component not in entered)

    def task(self, name: str) -> Task:
        return self._tasks[name]

    def gathered(self, name: str) -> frozenset[str]:
        """The tasks that a join at ``name`` waits for: those that lead to it, but not around a loop."""
        return frozenset(source for source in self._inbound[name] if not self.is_back(source, name))

    def inbound(self, name: str) -> frozenset[str]:
        """The tasks that lead to ``name``."""
        return self._inbound[name]

    def successors(self, name: str) -> tuple[str, ...]:
        """The tasks that ``name`` leads to, in the order in which its transitions name them."""
        return self._successors[name]

    def reachable_from(self, names: Iterable[str]) -> set[str]:
        """The tasks that ``names`` lead to, over any number of steps, and ``names`` themselves."""
        reached = set(names)
        waiting = list(reached)
        while waiting:
            for target in self._successors[waiting.pop()]:
                if target not in reached:
                    reached.add(target)
                    waiting.append(target)
        return reached

    def same_loop(self, source: str, target: str) -> bool:
        """Whether each of the two leads to the other (they are strongly connected), so that one loop holds both."""
        return self._components[source] == self._components[target]

    def is_back(self, source: str, target: str) -> bool:
        """Whether the edge closes a loop: ``target`` is on the way that leads from an entry to ``source``.

        The way is that of a depth-first walk from the entries in listed order. Every loop has such an edge, and
        without these edges there is none.
        """
        return (source, target) in self._back

    @cached_property
    def _back(self) -> frozenset[tuple[str, str]]:
        back: set[tuple[str, str]] = set()
        seen: set[str] = set()
        for entry in self.entries:
            if entry in seen:
                continue
            seen.add(entry)
            open_ = {entry}
            way: list[tuple[str, Iterator[str]]] = [(entry, iter(self._successors[entry]))]
            while way:
                source, targets = way[-1]
                for target in targets:
                    if target in open_:
                        back.add((source, target))
                    elif target not in seen:
                        seen.add(target)
                        open_.add(target)
                        way.append((target, iter(self._successors[target])))
                        break
                else:
                    open_.discard(source)
                    way.pop()
        return frozenset(back)

    @cached_property
    def _components(self) -> dict[str, int]:
        """The strongly connected component of each task (Tarjan's algorithm, with its stack on the heap)."""
        components: dict[str, int] = {}
        found: dict[str, int] = {}  # when the walk first came to the task
        lowest: dict[str, int] = {}  # the earliest that can be come to again from it
        pending: list[str] = []
        for root in self._order:
            if root in found:
                continue
            found[root] = lowest[root] = len(found)
            pending.append(root)
            way: list[tuple[str, Iterator[str]]] = [(root, iter(self._successors[root]))]
            while way:
                source, targets = way[-1]
                for target in targets:
                    if target not in found:
                        found[target] = lowest[target] = len(found)
                        pending.append(target)
                        way.append((target, iter(self._successors[target])))
                        break
                    if target not in components:
                        lowest[source] = min(lowest[source], found[target])
                else:
                    way.pop()
                    if way:
                        before = way[-1][0]
                        lowest[before] = min(lowest[before], lowest[source])
                    if lowest[source] == found[source]:
                        while True:
                            member = pending.pop()
                            components[member] = found[source]
                            if member == source:
                                break
        return components
