"""The scheduler's core: what one timer's row becomes, and what is to fire, when something happens to it.

Pure, and shared by the flow and by the simulation that tests it. A timer is armed, then *looked at* by the tick, again
and again, each look sending out the firings up to a horizon; each firing is *claimed* when its message arrives. Between
the two it is outstanding. A claim that does not come is found out by a later look, and the missed-run policy decides.

At any time, in the order of the schedule::

    ... settled ... | done | ... sent out, some of them claimed ... | sent | ... to come ...
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from chalicelib.domain import schedules
from chalicelib.domain.entities import Json, MissedRuns
from chalicelib.domain.schedules import Schedule
from chalicelib.protocol import Firing

# A look sends out what is due within AHEAD, and comes LEAD before the first firing that was not sent. A tick that
# comes up to a minute late so changes nothing, and a row written by one process is in the index long before (AHEAD less
# LEAD) another has to find it there.
AHEAD: Final = timedelta(seconds=150)
LEAD: Final = timedelta(seconds=120)

OUTSTANDING: Final = 300  # firings of one timer that are sent out at once; what was missed beyond that follows later
GIVE_UP: Final = timedelta(seconds=125)  # after that, a firing nobody claimed counts as lost

# How late a firing may be before it counts as missed: half the gap to the next one, within these bounds.
_GRACE: Final = (timedelta(seconds=2), timedelta(seconds=60))
_SKEW: Final = timedelta(seconds=5)  # between the clocks of whoever claims and whoever looks
_TICK: Final = timedelta(microseconds=1)


class Timer(msgspec.Struct, kw_only=True, frozen=True):
    """A timer of an enabled rule. ``version`` names the arming (no two have the same), ``count`` numbers the last
    firing sent out, ``look`` is when a tick must look at it (None: never again), ``reason`` why nothing will fire."""

    rule: int
    rule_ref: str
    version: int
    trigger_ref: str
    params: Json
    missed_runs: MissedRuns
    anchor: datetime
    done: datetime
    sent: datetime
    count: int = 0
    claimed: frozenset[datetime] = frozenset()
    look: datetime | None = None
    reason: str | None = None

    @property
    def schedule(self) -> Schedule:
        return schedules.parse(self.trigger_ref, self.params)


def arm(
    *, rule: int, rule_ref: str, version: int, trigger_ref: str, params: Json, missed_runs: MissedRuns, now: datetime
) -> tuple[Timer, list[Firing]]:
    """A timer that begins now, and what it fires soon. Intervals count from the next whole second.

    Raises ``ScheduleError`` for parameters that describe no schedule.
    """
    timer = Timer(
        rule=rule,
        rule_ref=rule_ref,
        version=version,
        trigger_ref=trigger_ref,
        params=params,
        missed_runs=missed_runs,
        anchor=now.replace(microsecond=0) + timedelta(seconds=1 if now.microsecond else 0),
        done=now,
        sent=now,
    )
    if timer.schedule.after(now, timer.anchor) is None:
        return msgspec.structs.replace(timer, reason=_over(timer, now)), []
    return look(timer, now)


def look(timer: Timer, now: datetime) -> tuple[Timer, list[Firing]]:
    """The timer after a look at it, and what is to be sent out, or sent out again."""
    schedule, anchor = timer.schedule, timer.anchor
    if timer.done > timer.sent:
        # A look sent this and died before it could write that down; the claim came all the same.
        unwritten = schedules.fires(schedule, anchor, after=timer.sent, until=timer.done, limit=OUTSTANDING)
        timer = msgspec.structs.replace(timer, sent=timer.done, count=timer.count + len(unwritten))
    outstanding = _outstanding(timer, schedule)
    pending = [fire for fire in outstanding if fire not in timer.claimed]
    done, cut, again = timer.sent if not pending else _before(timer, pending[0]), None, []
    if timer.missed_runs == "fire_all":
        again = [fire for fire in pending if fire + GIVE_UP <= now]
    else:
        cut = _last_missed(timer, schedule, pending, now)
        if cut is not None:
            # Nothing is wanted of what was missed, except with fire_once its last.
            done = max(done, cut - _TICK if timer.missed_runs == "fire_once" else cut)
            again = [cut] if timer.missed_runs == "fire_once" and cut <= timer.sent else []
    pending = [fire for fire in pending if fire > done]
    sent = max(timer.sent, done)
    fresh = schedules.fires(
        schedule,
        anchor,
        after=sent,
        until=now + AHEAD,
        limit=max(0, OUTSTANDING - sum(fire > done for fire in outstanding)),
    )
    sent = fresh[-1] if fresh else sent
    count = timer.count + len(fresh)
    following = schedule.after(sent, anchor)
    unclaimed = pending + [fire for fire in fresh if fire not in timer.claimed]
    after = None if following is None else following - LEAD
    looked = msgspec.structs.replace(
        timer,
        done=done,
        sent=sent,
        count=count,
        claimed=frozenset(fire for fire in timer.claimed if fire > done),
        look=_earliest(after, unclaimed[-1] + GIVE_UP if unclaimed else None),
    )
    # The last one sent out has the count, those before it the numbers before that.
    numbers = {fire: count - back for back, fire in enumerate(reversed(_outstanding(looked, schedule)))}
    firings = [
        Firing(
            rule_ref=timer.rule_ref,
            version=timer.version,
            at=fire,
            count=numbers[fire],
            late=fire == cut,
            only=len(unclaimed) == 1 and not looked.claimed,
            then=after,
        )
        for fire in [*again, *(fire for fire in fresh if fire not in timer.claimed)]
    ]
    return looked, firings


def is_missed(schedule: Schedule, missed_runs: MissedRuns, firing: Firing, now: datetime) -> bool:
    """Whether a firing's message came too late to be claimed. What then becomes of it is for the next look."""
    return missed_runs != "fire_all" and not firing.late and firing.at + grace(schedule, firing.at) < now


def claim(timer: Timer, firing: Firing) -> Timer | None:
    """The timer once ``firing`` is claimed; None when it must not fire (again). The store does the same in one
    conditional write (``store.timers``)."""
    if firing.version != timer.version or firing.at <= timer.done or firing.at in timer.claimed:
        return None
    if firing.only:
        return msgspec.structs.replace(timer, done=firing.at, look=firing.then)
    return msgspec.structs.replace(timer, claimed=timer.claimed | {firing.at})


def grace(schedule: Schedule, fire: datetime) -> timedelta:
    """How late the firing due at ``fire`` may be without being missed."""
    following = schedule.after(fire, fire)
    least, most = _GRACE
    return most if following is None else min(most, max(least, (following - fire) / 2))


def upcoming(timer: Timer, now: datetime, count: int) -> list[datetime]:
    """The next ``count`` moments at which the timer fires."""
    if timer.reason is not None:
        return []
    return schedules.fires(timer.schedule, timer.anchor, after=now, limit=count)


def why_silent(timer: Timer, now: datetime, last_fired_at: datetime | None) -> str | None:
    """Why nothing will fire any more; None while something will."""
    if timer.reason is not None or upcoming(timer, now, 1):
        return timer.reason
    if timer.done < timer.sent or timer.look is not None:
        return None  # its last firing is on its way
    return f"ended: {'last fired at ' + schedules.stamp(last_fired_at) if last_fired_at else 'its time was missed'}"


def _over(timer: Timer, now: datetime) -> str:
    schedule = timer.schedule
    at = schedules.stamp(now)
    if isinstance(schedule, schedules.Moment):
        return f"never fires: fire_at {schedules.stamp(schedule.fire_at)} was in the past when it was armed at {at}"
    return f"never fires: its last occurrence was in the past when it was armed at {at}"


def _outstanding(timer: Timer, schedule: Schedule) -> list[datetime]:
    return schedules.fires(schedule, timer.anchor, after=timer.done, until=timer.sent, limit=OUTSTANDING)


def _before(timer: Timer, fire: datetime) -> datetime:
    """The last claimed firing before ``fire``, or how far the timer was settled anyway."""
    return max([timer.done, *(each for each in timer.claimed if each < fire)])


def _last_missed(timer: Timer, schedule: Schedule, pending: Sequence[datetime], now: datetime) -> datetime | None:
    """The last firing that was missed. Those sent out in time are given the clocks' difference on top."""
    missed = [fire for fire in pending if fire + grace(schedule, fire) + _SKEW < now]
    since = timer.sent
    recently = now - _GRACE[1]
    if since < recently:
        last = schedules.latest(schedule, timer.anchor, after=since, until=recently)
        missed += [] if last is None else [last]
        since = recently
    late = schedules.fires(schedule, timer.anchor, after=since, until=now, limit=OUTSTANDING)
    missed += [fire for fire in late if fire + grace(schedule, fire) < now]
    return max(missed, default=None)


def _earliest(*moments: datetime | None) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)
