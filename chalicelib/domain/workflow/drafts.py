"""Tasks while a definition is read, and how blocks become a plain graph of them.

A block is a task without an action where it begins, which has the block's name, and one more where it ends,
``name.end``. Users' names have no dots, so what is made here never meets them, and ``task.NAME`` stays theirs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from chalicelib.domain.workflow.definition import Definition, Task, Transition
from chalicelib.domain.workflow.graph import Graph

SUCCEEDED: Final = "succeeded()"
FAILED: Final = "failed()"
TIMED_OUT: Final = "timed_out()"


@dataclass(slots=True)
class Draft:
    """A task to be. ``fields`` are its own besides name and transitions; ``leads`` are those transitions that follow
    from what stands around it, by their condition."""

    name: str
    path: str
    fields: dict[str, Any] = field(default_factory=dict)
    written: list[Transition] = field(default_factory=list)
    leads: dict[str | None, dict[str, None]] = field(default_factory=dict)

    def lead(self, when: str | None, *targets: str) -> None:
        """Let ``targets`` follow if ``when`` holds."""
        if targets:
            self.leads.setdefault(when, {}).update(dict.fromkeys(targets))

    @property
    def transitions(self) -> list[Transition]:
        return [*self.written, *(Transition(when=when, do=list(targets)) for when, targets in self.leads.items())]

    @property
    def runs(self) -> bool:
        """Whether it has an action, and so can fail by itself."""
        return self.fields.get("action") is not None

    def handles(self, function: str) -> bool:
        """Whether something follows where ``function`` (``failed()``, ``timed_out()``) holds."""
        return any(each.do and (each.when is None or function in each.when) for each in self.transitions)

    def task(self) -> Task:
        return Task(name=self.name, next=self.transitions, **self.fields)


@dataclass(frozen=True, slots=True)
class Exit:
    """A way out of what has been read: ``draft`` is through, and ``when`` holds."""

    draft: Draft
    when: str | None = None


Exits = list[Exit]  # of which a run takes one


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a list of tasks. It begins with the task ``start``. ``targets`` are where its own transitions lead,
    ``waits`` what it depends on; where it has either, or a join, it is ``linked``: the order of the list says nothing.
    """

    name: str
    path: str
    start: str
    exits: Exits
    targets: Sequence[str] = ()
    waits: Sequence[str] = ()
    linked: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A list of tasks within a task: it begins with ``starts``, all at once, and is through when each of ``tails``
    is."""

    starts: list[str]
    tails: list[Exits]


def in_sequence(members: Sequence[Member]) -> Block:
    """``members`` one after the other."""
    for one, following in pairwise(members):
        connect(one.exits, following.start)
    return Block([members[0].start], [members[-1].exits] if members[-1].exits else [])


def as_graph(members: Sequence[Member]) -> Block:
    """``members`` as their transitions and dependencies order them."""
    names = {member.name for member in members}
    targets = {member.name: [name for name in member.targets if name in names] for member in members}
    for member in members:
        for name in member.waits:
            if name in names:
                targets[name].append(member.name)
    graph = Graph(
        Definition(tasks=[Task(name=name, next=[Transition(do=followers)]) for name, followers in targets.items()])
    )
    starts = [name for name in graph.entries if not graph.inbound(name) or name == members[0].name]
    last = [member for member in members if not member.targets and not targets[member.name] and member.exits]
    start_of = {member.name: member.start for member in members}
    return Block([start_of[name] for name in starts], [member.exits for member in last])


def connect(exits: Iterable[Exit], target: str) -> None:
    """Let ``target`` follow whichever exit is taken."""
    for each in exits:
        each.draft.lead(each.when, target)


def close(tails: Sequence[Exits], name: str, path: str) -> list[Draft]:
    """What makes one end of ``tails``: last a task ``name`` that begins when each of them is through, before it what
    that takes. A tail with several exits meets in a task of its own, since a join counts tasks."""
    end = Draft(name, path)
    if len(tails) < 2:
        connect((each for tail in tails for each in tail), name)
        return [end]
    end.fields |= {"join": "all", "gathers": True}
    meetings: list[Draft] = []
    for number, tail in enumerate(tails, 1):
        if len({each.draft.name for each in tail}) == 1:
            connect(tail, name)
        else:
            meeting = Draft(f"{name}.{number}", path)
            connect(tail, meeting.name)
            meeting.lead(None, name)
            meetings.append(meeting)
    return [*meetings, end]
