"""Which task leads to which, against definitions that anybody can check."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.workflow.definition import Definition, Task, Transition
from chalicelib.domain.workflow.graph import Graph

Edges = dict[str, list[str]]


def graph(edges: Edges) -> Graph:
    return Graph(
        Definition(
            tasks=[Task(name=name, next=[Transition(do=[target]) for target in do]) for name, do in edges.items()]
        )
    )


def leads_to(edges: Edges) -> dict[str, set[str]]:
    """What each task leads to over one step or more, by Warshall's algorithm."""
    closure = {name: set(do) for name, do in edges.items()}
    for middle, name in product(closure, closure):
        if middle in closure[name]:
            closure[name] |= closure[middle]
    return closure


@st.composite
def all_edges(draw: st.DrawFn) -> Edges:
    names = [f"t{number}" for number in range(draw(st.integers(1, 8)))]
    return {name: draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) for name in names}


def test_entries_are_what_nothing_leads_to() -> None:
    assert graph({"b": ["c"], "a": ["c"], "c": []}).entries == ("b", "a")


def test_a_loop_that_nothing_leads_into_begins_with_its_first_listed_task() -> None:
    assert graph({"a": [], "c": ["b"], "b": ["c"]}).entries == ("a", "c")
    assert graph({"again": ["again"]}).entries == ("again",)


def test_an_entered_loop_is_no_entry() -> None:
    loop = graph({"c": ["b"], "b": ["c"], "a": ["b"]})
    assert loop.entries == ("a",)
    assert loop.is_back("c", "b")
    assert not loop.is_back("b", "c")


def test_inbound_and_successors_name_each_task_once() -> None:
    tasks = [
        Task(name="a", next=[Transition(do=["b", "b"]), Transition(do=["c", "b"])]),
        Task(name="c"),
        Task(name="b"),
    ]
    known = Graph(Definition(tasks=tasks))
    assert known.successors("a") == ("b", "c")
    assert known.inbound("b") == {"a"}
    assert known.inbound("a") == frozenset()


def test_a_target_that_is_no_task_leads_nowhere() -> None:
    assert graph({"a": ["gone"]}).successors("a") == ()


def test_a_long_chain_and_a_long_loop() -> None:
    count = 5_000
    chain: Edges = {f"t{number}": [f"t{number + 1}"] for number in range(count)}
    known = graph({**chain, f"t{count}": []})
    assert known.entries == ("t0",)
    assert len(known.reachable_from(["t0"])) == count + 1
    loop = graph({**chain, f"t{count}": ["t0"]})
    assert loop.entries == ("t0",)
    assert loop.same_loop("t0", f"t{count}")
    assert loop.is_back(f"t{count}", "t0")


@given(all_edges())
def test_reachability_is_the_closure(edges: Edges) -> None:
    known, closure = graph(edges), leads_to(edges)
    for name in edges:
        assert known.reachable_from([name]) == closure[name] | {name}
    assert known.reachable_from([]) == set()


@given(all_edges())
def test_one_loop_holds_what_leads_to_each_other(edges: Edges) -> None:
    known, closure = graph(edges), leads_to(edges)
    for one, other in product(edges, edges):
        assert known.same_loop(one, other) == (one == other or (other in closure[one] and one in closure[other]))


@given(all_edges())
def test_entries_reach_all_and_none_is_too_many(edges: Edges) -> None:
    known, closure = graph(edges), leads_to(edges)
    before = {name: {other for other in edges if name in closure[other]} for name in edges}
    expected = [
        name
        for position, name in enumerate(edges)
        # Whatever leads to it is in its own loop, and listed later.
        if before[name] <= closure[name] | {name} and not before[name] & set(list(edges)[:position])
    ]
    assert list(known.entries) == expected
    assert known.reachable_from(known.entries) == set(edges)


@given(all_edges())
def test_back_edges_close_loops_and_leave_none(edges: Edges) -> None:
    known = graph(edges)
    without: Edges = {name: [target for target in do if not known.is_back(name, target)] for name, do in edges.items()}
    closure = leads_to(without)
    assert not [name for name in edges if name in closure[name]]
    for name, do in edges.items():
        assert all(known.same_loop(name, target) for target in do if known.is_back(name, target))
    # What is reached does not change: a back edge leads to where the walk has been.
    assert set().union(*(closure[name] | {name} for name in known.entries)) == set(edges)
