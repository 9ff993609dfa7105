"""When timers fire (contract: semantics §2.5, README 8): intervals, cron expressions, single moments, recurrences.

A schedule is a value: it knows no clock. All of them answer one question, the first firing strictly after a moment;
everything else is derived from that. Moments are aware UTC datetimes. ``anchor`` is the moment a timer was armed at:
intervals count from it, the others do not need it.
"""

import datetime as datetimes
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, Protocol
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError
from dateutil import rrule

from chalicelib.domain.entities import Json

INTERVAL: Final = "core.intervaltimer"
CRON: Final = "core.crontimer"
DATETIME: Final = "core.datetimetimer"
RRULE: Final = "core.rruletimer"
TIMERS: Final = frozenset((INTERVAL, CRON, DATETIME, RRULE))

SENSOR_REFS: Final[Mapping[str, str]] = {trigger: f"{trigger}_sensor" for trigger in TIMERS}

_UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}
_LONGEST: Final = 100 * 366 * 86_400  # seconds: a longer interval is a slip
_MOST_COUNTED: Final = 10_000  # firings of a recurrence with a count: they are counted from its start each time
_LAST_YEAR: Final = 2150  # recurrences end here, so that one that never fires is found out at once
_SHIFT: Final = timedelta(hours=3)  # no zone moves its clock by more at once
_MIDNIGHT: Final = datetime(2000, 1, 1, tzinfo=UTC)


class ScheduleError(Exception):
    """The parameters describe no schedule; the message says what to change."""


class Schedule(Protocol):
    """What all schedules do."""

    def after(self, moment: datetime, anchor: datetime, /) -> datetime | None:
        """The first firing after ``moment``; None when there is none any more."""
        ...

    def payload(self, fire: datetime, fired_at: datetime, count: int, /) -> dict[str, Json]:
        """What the event of the firing that was due at ``fire`` says. ``count`` numbers the timer's firings from 1."""
        ...


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many seconds, counted from the anchor."""

    seconds: int

    def after(self, moment: datetime, anchor: datetime) -> datetime | None:
        step = timedelta(seconds=self.seconds)
        done = max(0, (moment - anchor) // step)
        try:
            return anchor + (done + 1) * step
        except OverflowError:
            return None

    def payload(self, _fire: datetime, fired_at: datetime, count: int) -> dict[str, Json]:
        return {
            "type": "interval",
            "interval_seconds": self.seconds,
            "fired_at": stamp(fired_at),
            "execution_count": count,
            "sensor_ref": SENSOR_REFS[INTERVAL],
        }


@dataclass(frozen=True)
class Cron:
    """Whenever the clock of ``zone`` shows what the expression says.

    Across changes of the clock as Debian's cron does: jobs at fixed times run once a day, right after a gap that
    swallows theirs and at the first of two equal times; jobs with a star for minute or hour follow the hours that there
    are.
    """

    expression: str
    zone: ZoneInfo

    @cached_property
    def _parts(self) -> tuple[str, int]:
        """The expression that is searched, and seconds to add to what it finds.

        cronsim knows Debian's rules for five fields only; a fixed second is five fields and an offset.
        """
        fields = self.expression.split()
        if len(fields) == 6 and fields[0].isdigit():
            return " ".join(fields[1:]), int(fields[0])
        return self.expression, 0

    def after(self, moment: datetime, _anchor: datetime) -> datetime | None:
        expression, seconds = self._parts
        offset = timedelta(seconds=seconds)
        for found in CronSim(expression, (moment - offset - timedelta(seconds=1)).astimezone(self.zone)):
            fire = found.astimezone(UTC) + offset
            if fire > moment:
                return fire
        return None

    def payload(self, fire: datetime, fired_at: datetime, count: int) -> dict[str, Json]:
        following = self.after(fire, fire)
        return {
            "type": "cron",
            "fired_at": stamp(fired_at),
            "scheduled_at": stamp(fire),
            "expression": self.expression,
            "timezone": self.zone.key,
            "next_fire_at": None if following is None else stamp(following),
            "execution_count": count,
            "sensor_ref": SENSOR_REFS[CRON],
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """Once."""

    fire_at: datetime
    zone: ZoneInfo

    def after(self, moment: datetime, _anchor: datetime) -> datetime | None:
        return self.fire_at if self.fire_at > moment else None

    def payload(self, fire: datetime, fired_at: datetime, _count: int) -> dict[str, Json]:
        return {
            "type": "one_shot",
            "fire_at": stamp(fire),
            "fired_at": stamp(fired_at),
            "timezone": self.zone.key,
            "delay_ms": _delay(fire, fired_at),
            "sensor_ref": SENSOR_REFS[DATETIME],
        }


class _Rule(rrule.rrule):
    """dateutil's recurrence, given up at ``_LAST_YEAR`` rather than in the year 9999: one that never occurs (30
    February) would keep it busy for seconds. The generator takes the year from its module's ``datetime.MAXYEAR`` and
    from nowhere else, so it gets that name with another value."""

    _iter = types.FunctionType(
        rrule.rrule._iter.__code__,  # type: ignore[attr-defined]  # not in its stubs
        {**vars(rrule), "datetime": types.SimpleNamespace(**{**vars(datetimes), "MAXYEAR": _LAST_YEAR})},
    )


# Below a month every period is equally long, so that a search can begin near its goal instead of at the start.
_PERIODS: Final = {
    rrule.WEEKLY: timedelta(weeks=1),
    rrule.DAILY: timedelta(days=1),
    rrule.HOURLY: timedelta(hours=1),
    rrule.MINUTELY: timedelta(minutes=1),
    rrule.SECONDLY: timedelta(seconds=1),
}


@dataclass(frozen=True)
class Recurrence:
    """RFC 5545, on the clock of ``zone``. ``start`` and ``until`` are that clock's readings.

    A time that a change of the clock leaves out is read with the offset before it (§3.3.5), unless the rule repeats
    within the day: then there is simply no such time. One that comes twice counts the first time, or within the day
    both times.
    """

    freq: Literal[0, 1, 2, 3, 4, 5, 6]  # dateutil's YEARLY to SECONDLY
    start: datetime
    zone: ZoneInfo
    options: tuple[tuple[str, Any], ...]
    interval: int = 1
    count: int | None = None
    until: datetime | None = None

    def after(self, moment: datetime, _anchor: datetime) -> datetime | None:
        local = moment.astimezone(self.zone).replace(tzinfo=None)
        steady = self._offset(local - _SHIFT) == self._offset(local + _SHIFT)
        best: tuple[datetime, datetime] | None = None
        for reading in self._readings(local if steady else local - _SHIFT):
            if best is not None and reading > best[0] + _SHIFT:
                break
            for instant in self._instants(reading):
                if instant > moment and (best is None or instant < best[1]):
                    best = reading, instant
            if best is not None and self._offset(best[0] - _SHIFT) == self._offset(best[0] + _SHIFT):
                break
        return None if best is None else best[1]

    def _readings(self, since: datetime) -> Iterator[datetime]:
        """The recurrence's readings from ``since`` on."""
        if self.count is not None:
            return (reading for reading in self._all if reading >= since)
        start = self.start
        period = _PERIODS.get(self.freq)
        if period is not None and since > start:
            start += (since - start) // (period * self.interval) * period * self.interval
            # The week of the start counts from its first day, and an hour's minutes from its first.
            start = max(self.start, start - period * self.interval)
        return (reading for reading in self._rule(start) if reading >= since)

    @cached_property
    def _all(self) -> list[datetime]:
        return list(self._rule(self.start))

    def _rule(self, start: datetime) -> Iterator[datetime]:
        return iter(
            _Rule(
                self.freq,
                dtstart=start,
                interval=self.interval,
                count=self.count,
                until=self.until,
                **dict(self.options),
            )
        )

    def _instants(self, reading: datetime) -> list[datetime]:
        first, second = (reading.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if first == second or self.freq not in (rrule.HOURLY, rrule.MINUTELY, rrule.SECONDLY):
            return [first]
        return [first, second] if first < second else []

    def _offset(self, reading: datetime) -> timedelta | None:
        return reading.replace(tzinfo=self.zone).utcoffset()

    def payload(self, fire: datetime, fired_at: datetime, count: int) -> dict[str, Json]:
        return {
            "type": "rrule",
            "fired_at": stamp(fired_at),
            "scheduled_at": stamp(fire),
            "delay_ms": _delay(fire, fired_at),
            "execution_count": count,
            "sensor_ref": SENSOR_REFS[RRULE],
        }


def is_timer(trigger_ref: str) -> bool:
    """Whether rules on that trigger are timers."""
    return trigger_ref in TIMERS


def parse(trigger_ref: str, params: Json) -> Schedule:
    """The schedule that ``params`` of the timer trigger describe. Raises :class:`ScheduleError`."""
    return _parsed(trigger_ref, msgspec.json.encode(params, order="sorted"))


def validate(trigger_ref: str, params: Json) -> None:
    """Raises :class:`ScheduleError` where ``params`` describe no schedule, or one that never fires whenever it is
    armed. A date in the past is neither: it is over."""
    schedule = parse(trigger_ref, params)
    # Before anything could have happened. An interval has no beginning of its own and fires always.
    if schedule.after(_MIDNIGHT, _MIDNIGHT) is None and not isinstance(schedule, Moment):
        what = "expression" if isinstance(schedule, Cron) else "rule"
        raise ScheduleError(f"{what}: never fires")


@lru_cache(maxsize=2000)
def _parsed(trigger_ref: str, encoded: bytes) -> Schedule:
    params = msgspec.json.decode(encoded)
    if not isinstance(params, dict):
        raise ScheduleError("trigger_params must be an object")
    given = {name: value for name, value in params.items() if value is not None}
    return _PARSERS[trigger_ref](given)


def fires(
    schedule: Schedule, anchor: datetime, *, after: datetime, until: datetime | None = None, limit: int
) -> list[datetime]:
    """The firings after ``after`` up to and including ``until``, at most ``limit``."""
    found: list[datetime] = []
    moment = after
    while len(found) < limit:
        following = schedule.after(moment, anchor)
        if following is None or (until is not None and following > until):
            break
        found.append(following)
        moment = following
    return found


def latest(schedule: Schedule, anchor: datetime, *, after: datetime, until: datetime) -> datetime | None:
    """The last firing after ``after`` up to and including ``until``.

    Looks back in growing steps: what fires often is found soon, and what fires rarely has few firings to pass.
    """
    for back in (timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=31), None):
        since = after if back is None else max(after, until - back)
        last = None
        while (following := schedule.after(since, anchor)) is not None and following <= until:
            last = since = following
        if last is not None:
            return last
    return None


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds where there are any."""
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _delay(fire: datetime, fired_at: datetime) -> int:
    return max(0, (fired_at - fire) // timedelta(milliseconds=1))


# Reading parameters


def _interval(params: Mapping[str, Json]) -> Interval:
    unit = params.get("unit", "seconds")
    if not isinstance(unit, str) or unit not in _UNITS:
        raise ScheduleError(f"unit: must be one of {', '.join(_UNITS)}, not {unit!r}")
    seconds = _whole(params, "interval") * _UNITS[unit]
    if seconds > _LONGEST:
        raise ScheduleError("interval: must not be longer than a hundred years")
    return Interval(seconds)


def _cron(params: Mapping[str, Json]) -> Cron:
    expression = " ".join(_text(params, "expression").split())
    try:
        # Day 0 as well as 7 is Sunday; what cannot be is found by trying.
        CronSim(expression, _MIDNIGHT)
    except CronSimError as error:
        raise ScheduleError(
            f"expression: {str(error)[:1].lower()}{str(error)[1:]} in {expression!r}; "
            "cron has five fields (minute, hour, day of month, month, day of week), or six with the second before them"
        ) from None
    return Cron(expression, _zone(params))


def _moment(params: Mapping[str, Json]) -> Moment:
    zone = _zone(params)
    fire_at = _time(params, "fire_at", zone)
    return Moment(fire_at, zone)


def _recurrence(params: Mapping[str, Json]) -> Recurrence:
    zone = _zone(params)
    start = _time(params, "dtstart", zone).astimezone(zone).replace(tzinfo=None, microsecond=0)
    if start.year < 1970:
        raise ScheduleError("dtstart: must not be before 1970")
    fields = _spelled(_text(params, "rule")) if "rule" in params else dict(params)
    freq = str(fields.get("freq", "")).upper()
    if freq not in _FREQUENCIES:
        raise ScheduleError(f"freq: must be one of {', '.join(_FREQUENCIES)}, not {fields.get('freq')!r}")
    count = _whole(fields, "count") if "count" in fields else None
    if count is not None and count > _MOST_COUNTED:
        raise ScheduleError(f"count: must be at most {_MOST_COUNTED}; use until for more")
    until = _time(fields, "until", zone).astimezone(zone).replace(tzinfo=None) if "until" in fields else None
    if count is not None and until is not None:
        raise ScheduleError("count and until exclude each other (RFC 5545 §3.3.10)")
    options = {target: _numbers(fields, name, low, high) for name, (target, low, high) in _BY.items() if name in fields}
    if "by_day" in fields:
        options["byweekday"] = tuple(_weekday(day, freq) for day in _listed(fields["by_day"]))
    if "by_set_pos" in fields and len(options) == 1:
        raise ScheduleError("by_set_pos: needs another by_ field to choose from")
    options["wkst"] = _weekday(fields.get("week_start", "MO"), "WEEKLY")
    recurrence = Recurrence(
        freq=_FREQUENCIES[freq],
        start=start,
        zone=zone,
        options=tuple(options.items()),
        interval=_whole(fields, "interval") if "interval" in fields else 1,
        count=count,
        until=until,
    )
    try:
        next(recurrence._rule(start), None)
    except (ValueError, OverflowError) as error:
        raise ScheduleError(f"rule: {error}") from None
    return recurrence


_PARSERS: Final[Mapping[str, Callable[[Mapping[str, Json]], Schedule]]] = {
    INTERVAL: _interval,
    CRON: _cron,
    DATETIME: _moment,
    RRULE: _recurrence,
}

_FREQUENCIES: Final[Mapping[str, Literal[0, 1, 2, 3, 4, 5, 6]]] = {
    "YEARLY": 0,
    "MONTHLY": 1,
    "WEEKLY": 2,
    "DAILY": 3,
    "HOURLY": 4,
    "MINUTELY": 5,
    "SECONDLY": 6,
}

# Our names of RFC 5545's lists: dateutil's name, and the range of their numbers (negative ones count from the end).
_BY: Final[Mapping[str, tuple[str, int, int]]] = {
    "by_month": ("bymonth", 1, 12),
    "by_month_day": ("bymonthday", -31, 31),
    "by_year_day": ("byyearday", -366, 366),
    "by_week_no": ("byweekno", -53, 53),
    "by_hour": ("byhour", 0, 23),
    "by_minute": ("byminute", 0, 59),
    "by_second": ("bysecond", 0, 59),
    "by_set_pos": ("bysetpos", -366, 366),
}

_SPELLINGS: Final = {
    "FREQ": "freq",
    "INTERVAL": "interval",
    "COUNT": "count",
    "UNTIL": "until",
    "WKST": "week_start",
    "BYDAY": "by_day",
    "BYMONTH": "by_month",
    "BYMONTHDAY": "by_month_day",
    "BYYEARDAY": "by_year_day",
    "BYWEEKNO": "by_week_no",
    "BYHOUR": "by_hour",
    "BYMINUTE": "by_minute",
    "BYSECOND": "by_second",
    "BYSETPOS": "by_set_pos",
}

_DAYS: Final = {str(day): day for day in (rrule.MO, rrule.TU, rrule.WE, rrule.TH, rrule.FR, rrule.SA, rrule.SU)}


def _spelled(text: str) -> dict[str, Json]:
    """The fields of a recurrence rule in RFC 5545's spelling: ``FREQ=WEEKLY;BYDAY=MO,FR``."""
    fields: dict[str, Json] = {}
    for part in text.strip().removeprefix("RRULE:").split(";"):
        name, equals, value = part.partition("=")
        if not equals or name.strip().upper() not in _SPELLINGS:
            known = ", ".join(_SPELLINGS)
            raise ScheduleError(f"rule: {part!r} is not NAME=VALUE with one of {known}")
        fields[_SPELLINGS[name.strip().upper()]] = value.strip()
    return fields


def _zone(params: Mapping[str, Json]) -> ZoneInfo:
    name = params.get("timezone", "UTC")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):  # OSError: the name of a folder of zones
        raise ScheduleError(
            f"timezone: {name!r} is not the name of a time zone (IANA, such as Europe/Berlin)"
        ) from None


def _text(params: Mapping[str, Json], name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ScheduleError(f"{name}: must be a text that is not empty" if name in params else f"{name}: is required")
    return value


def _whole(params: Mapping[str, Json], name: str) -> int:
    value = params.get(name)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        got = f"not {value!r}" if name in params else "and is missing"
        raise ScheduleError(f"{name}: must be a whole number from 1, {got}")
    if value > _LONGEST:
        raise ScheduleError(f"{name}: {value} is too big")
    return value


def _time(params: Mapping[str, Json], name: str, zone: ZoneInfo) -> datetime:
    """A moment in ISO 8601. Without an offset it is one of ``zone``'s clock."""
    text = _text(params, name).strip()
    try:
        moment = datetime.fromisoformat(text.upper().replace(" ", "T", 1))
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ScheduleError(
            f"{name}: {text!r} is not a date and time (ISO 8601, such as 2030-01-31T09:00:00Z)"
        ) from None
    if not 1 < moment.year < 9999:
        raise ScheduleError(f"{name}: {text!r} is beyond the calendar")
    return moment


def _listed(value: Json) -> list[Json]:
    """A list, given as one, as text with commas, or as its only element."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, list) else [value]


def _numbers(fields: Mapping[str, Json], name: str, low: int, high: int) -> tuple[int, ...]:
    numbers: list[int] = []
    for each in _listed(fields[name]):
        try:
            number: Any = int(each) if isinstance(each, str) else each
        except ValueError:
            number = None
        in_range = isinstance(number, int) and not isinstance(number, bool) and low <= number <= high
        if not in_range or (low < 0 and number == 0):
            raise ScheduleError(f"{name}: must be whole numbers from {low} to {high}{' without 0' * (low < 0)}")
        numbers.append(number)
    if not numbers:
        raise ScheduleError(f"{name}: must not be empty")
    return tuple(numbers)


def _weekday(value: Json, freq: str) -> Any:
    text = str(value).upper().lstrip("+")
    day, nth = _DAYS.get(text[-2:]), text[:-2]
    if day is None or (not nth.lstrip("-").isdecimal() and nth):
        raise ScheduleError(f"by_day and week_start: {value!r} is not MO, TU, WE, TH, FR, SA or SU")
    if not nth:
        return day
    if freq not in ("YEARLY", "MONTHLY"):
        raise ScheduleError(f"by_day: {value!r} counts days, which only MONTHLY and YEARLY can")
    if not 1 <= abs(int(nth)) <= 53:
        raise ScheduleError(f"by_day: {value!r} counts beyond a year")
    return day(int(nth))
