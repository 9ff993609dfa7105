"""Has a sensor written for attune-sdk look once, where the SDK would let it run for ever (docs/sensors.md).

This file's text is copied into the sensor's own process and runs before the sensor's file, whose path is its argument:
it replaces ``attune.run_sensor``. Nothing of the platform can be imported here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EARLY = 0.6  # seconds: a rule that is due so soon is polled now


class Rhythm:
    """When each rule's next poll is due, in seconds since 1970, kept from poll to poll."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self.due = {key: value for key, value in kept.items() if isinstance(value, (int, float))}

    def is_due(self, rule: Any, now: float) -> bool:
        return self.due.get(str(rule.rule_id), now) - now < EARLY

    def polled(self, rule: Any, interval: float, now: float) -> None:
        """An interval after it was due, so that the rhythm does not drift; after now, when that is past."""
        interval = max(1.0, interval)
        following = self.due.get(str(rule.rule_id), now) + interval
        self.due[str(rule.rule_id)] = following if following > now else now + interval

    def only(self, rules: list[Any]) -> None:
        """Forget the rules that are gone."""
        known = {str(rule.rule_id) for rule in rules}
        self.due = {key: value for key, value in self.due.items() if key in known}


def run_once(sensor_class: Any) -> None:
    """What ``attune.run_sensor`` is while this drives: set up, poll each rule that is due, clean up, report."""
    sdk = sys.modules["attune.sensor"]
    given = json.load(sys.stdin)
    state = given.get("state") or {}
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sensor = sensor_class()
    rules = [
        sdk.RuleState(
            rule_id=rule["id"],
            rule_ref=rule["ref"],
            trigger_ref=rule["trigger_ref"],
            trigger_params=rule["trigger_params"] or {},
        )
        for rule in given["rules"]
    ]
    sensor._rules = {rule.rule_id: rule for rule in rules}
    if not hasattr(sensor, "state"):
        sensor.state = {}
    sensor.state.update(state.get("state") or {})
    rhythm = Rhythm(state.get("due") or {})
    rhythm.only(rules)
    if isinstance(sensor, sdk.AsyncPollingSensor):
        failed = asyncio.run(_poll_async(sensor, rules, rhythm))
    elif isinstance(sensor, sdk.PollingSensor):
        failed = _poll(sensor, rules, rhythm)
    else:
        sys.exit("only a PollingSensor or an AsyncPollingSensor can be polled; this sensor has a loop of its own")
    if failed:
        sys.exit("the poll of every rule failed")
    print(json.dumps({"state": {"due": rhythm.due, "state": sensor.state}}))
    if rhythm.due:
        print(json.dumps({"next_poll": max(1.0, min(rhythm.due.values()) - time.time())}))
    sys.exit(0)


def _poll(sensor: Any, rules: list[Any], rhythm: Rhythm) -> bool:
    """Whether there was something to poll, and all of it failed."""
    sensor.setup()
    outcomes = []
    try:
        for rule in rules:
            now = time.time()
            if rhythm.is_due(rule, now):
                try:
                    sensor.poll(rule)
                    outcomes.append(True)
                except Exception as error:
                    outcomes.append(False)
                    sensor.logger.error("Poll error for rule %s: %s", rule.rule_ref, error)  # noqa: TRY400  # as the SDK
                rhythm.polled(rule, sensor._get_rule_interval(rule), now)
    finally:
        sensor.cleanup()
        if sensor._http_client is not None:
            sensor._http_client.close()
    return bool(outcomes) and not any(outcomes)


async def _poll_async(sensor: Any, rules: list[Any], rhythm: Rhythm) -> bool:
    await sensor.setup()
    try:
        now = time.time()
        due = [rule for rule in rules if rhythm.is_due(rule, now)]
        outcomes = await asyncio.gather(*(sensor.poll(rule) for rule in due), return_exceptions=True)
        for rule, outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                sensor.logger.error("Poll error for rule %s: %s", rule.rule_ref, outcome)
            rhythm.polled(rule, sensor._get_rule_interval(rule), now)
    finally:
        await sensor.cleanup()
        if sensor._async_http_client is not None:
            await sensor._async_http_client.aclose()
    return bool(outcomes) and all(isinstance(outcome, BaseException) for outcome in outcomes)


def main() -> None:
    """Run the sensor's file as the main program, with ``attune.run_sensor`` replaced."""
    path = sys.argv[1]
    sys.argv = [path]
    sys.path[0] = path.rpartition("/")[0]
    import attune
    import attune.sensor

    attune.run_sensor = attune.sensor.run_sensor = run_once
    names = sys.modules["__main__"].__dict__
    names["__file__"] = path
    with open(path, "rb") as file:  # noqa: PTH123  # pathlib would be one more import
        source = file.read()
    exec(compile(source, path, "exec", dont_inherit=True), names)  # noqa: S102  # that is the whole point


if __name__ == "__main__":
    main()
