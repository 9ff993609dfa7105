"""One tenant floods, another goes on as before: the other's work does not wait behind the flood's, and nothing of the
flood is lost.

Scaled down from the benchmark (``python -m tests.bench --only fairness``), which floods with 2,000.
"""

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.flood import ACTION, Latencies, flood, steadily
from helpers.polling import wait_for, wait_for_execution_completion
from helpers.stack import Stack
from helpers.tenants import own_tenant

FLOOD = 80
ROUNDS = 2  # other work on the machine only ever adds: the better round counts
NOTICED = 0.2  # seconds: what is quicker than this is doubled by less than anybody notices


@pytest.mark.tier1
@pytest.mark.multi_tenant
def test_a_flood_of_one_tenant_leaves_the_others_their_pace(stack: Stack) -> None:
    """While one tenant asks for many executions at once, another's median latency no more than doubles."""
    if not stack.is_local:
        pytest.skip("latencies are told by one clock")
    with own_tenant(stack) as loud, own_tenant(stack) as steady:
        steadily(steady, every=0.2, go_on=lambda number: number < 4)  # warm
        ratios = []
        for number in range(1, ROUNDS + 1):
            before = steadily(steady, every=0.3, go_on=lambda number: number < 8)
            with flood(loud, FLOOD) as asking:
                during = steadily(steady, every=0.3, go_on=lambda number: number < 8 or asking.poll() is None)
            wait_for_completed(loud, number * FLOOD)
            after = steadily(steady, every=0.3, go_on=lambda number: number < 8)
            alone = Latencies([*before.seconds, *after.seconds]).median
            ratios.append(during.median / max(alone, NOTICED))
            print(f"alone {alone * 1000:.0f} ms, during the flood {during.median * 1000:.0f} ms")
            if ratios[-1] <= 2:
                break
    assert min(ratios) <= 2


@pytest.mark.tier1
@pytest.mark.multi_tenant
def test_what_is_too_much_at_once_waits_and_says_why(stack: Stack) -> None:
    """A tenant that may run one at a time: the others wait, say so, and run one after the other."""
    with own_tenant(stack, quotas={"running_at_once": 1}) as client:
        started = [client.execute("core.sleep", {"seconds": 0.3})["id"] for _ in range(8)]
        reasons: set[str] = set()
        most = 0

        def done() -> bool:
            nonlocal most
            rows = [client.get_execution(id_) for id_ in started]
            reasons.update(row["waiting_for"] for row in rows if "waiting_for" in row)
            intervals = [(row["started_at"], row["updated"]) for row in rows if row["status"] == "completed"]
            most = max([most, *(sum(a <= began < b for a, b in intervals) for began, _ in intervals)])
            return all(row["status"] == "completed" for row in rows)

        with stack.sign_in() as platform:
            assert platform.data("GET", f"tenants/{client.tenant}")["quotas"]["running_at_once"] == 1
        wait_for(done, timeout=120, what="all to run")
        assert most == 1, "no two ran at the same time"
        assert any("at once" in reason for reason in reasons), reasons


@pytest.mark.tier1
@pytest.mark.multi_tenant
def test_what_is_asked_for_too_often_is_refused_at_the_door(client: AttuneClient, stack: Stack) -> None:
    with own_tenant(stack, quotas={"executions_per_minute": 5}) as small:

        def refused() -> ApiError | None:
            try:
                small.execute(ACTION, {"message": "more"})
            except ApiError as error:
                return error
            return None

        error = wait_for(refused, timeout=30, what="the tenant's quota to be used up")
        assert error.status == 429
        answer = small.request("POST", "executions/execute", json={"action_ref": ACTION})
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert answer.json()["code"] == "TOO_MANY_REQUESTS"
        # The others go on.
        wait_for_execution_completion(client, client.execute(ACTION, {"message": "mine"})["id"])


def wait_for_completed(client: AttuneClient, count: int) -> None:
    def completed() -> bool:
        stats: dict[str, Json] = client.data("GET", "executions/stats")
        assert stats["failed"] + stats["abandoned"] + stats["timeout"] == 0, stats
        return bool(stats["completed"] >= count)

    wait_for(completed, timeout=120, what=f"{count} executions to complete")
