"""The runner function: one invocation is one attempt of one execution (design §3).

    decode Run ──► its runner ──► redact ──► RunFinished to the results queue ──► one log line

What the tenant's code or parameters did wrong is a result. What the platform did wrong (no archive, no zygote, no
queue) is an exception: Lambda hands the run to the on-failure destination as lost, and it is tried again elsewhere.
"""

import atexit
import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from chalicelib.protocol import Build, EnvironmentBuilt, Poll, Run, RunFinished, SensorPolled
from runners import kernel, results
from runners.cancellation import Cancellation
from runners.sandbox import TERMINATION_GRACE, Ended, Job, Sandbox

# Before anything else: the zygote starts while the rest is being imported, and is not a copy of any of it.
_sandbox = Sandbox()
atexit.register(_sandbox.close)

from runners.capture import Capture  # noqa: E402
from runners.following import REPORTING, Outcome, followed  # noqa: E402
from runners.output import could_not_start  # noqa: E402
from runners.pack_files import NoSuchFileError, PackFiles  # noqa: E402
from runners.parameters import document  # noqa: E402
from runners.programs import RuntimeMissingError, job_for  # noqa: E402
from runners.redaction import Redactor  # noqa: E402

Json = Any

UPLOADING: Final = 60.0  # seconds that are kept for storing an environment
STORING: Final = 30.0  # and for storing what a run leaves to others
_MEGABYTE: Final = 1024 * 1024
_HEADROOM: Final = 64 * _MEGABYTE  # of the function's memory, for this process

kernel.set_dumpable(on=False)  # this process holds credentials
_log = results.logger()


class Runner:
    """The runners of one environment, with what they keep between runs: a zygote, and packs on disk."""

    def __init__(self, sandbox: Sandbox, *, memory: int | None = None) -> None:
        self._sandbox = sandbox
        self._packs = PackFiles(sandbox.base)
        self._memory = memory

    def carry_out(self, run: Run, *, seconds_left: float | None = None) -> RunFinished:
        """Run it. ``seconds_left``: what the invocation has. Raises what is the platform's fault (module docstring)."""
        started = time.monotonic()
        if seconds_left is not None and run.artifacts is not None:
            seconds_left -= STORING
        outcome = self._outcome(run, _affordable(run.timeout, seconds_left))
        duration = round((time.monotonic() - started) * 1000)
        fields = {"tenant": run.tenant, "execution": run.execution, "attempt": run.attempt, "runner": run.runner}
        _log.info("run", extra={"fields": fields | {"status": outcome.status, "duration_ms": duration} | outcome.log})
        return RunFinished(
            tenant=run.tenant,
            execution=run.execution,
            attempt=run.attempt,
            token=run.token,
            status=outcome.status,
            result=outcome.result,
            timed_out=outcome.timed_out,
            duration_ms=duration,
            log_parts=outcome.log_parts,
            printed=outcome.printed,
            artifacts=outcome.artifacts,
        )

    def build(self, order: Build, *, seconds_left: float | None = None) -> EnvironmentBuilt:
        """Build an environment. ``seconds_left`` and what is raised: as for :meth:`carry_out`."""
        from runners import environments

        report = environments.build(
            order,
            self._sandbox,
            self._packs.folder(order.tenant, order.pack),
            group=self._packs.group(order.tenant),
            memory=self._memory,
            timeout=_affordable(order.timeout, None if seconds_left is None else seconds_left - UPLOADING),
        )
        fields = {"tenant": order.tenant, "environment": order.environment, "attempt": order.attempt}
        numbers = {"ready": report.ready, "bytes": report.size, "duration_ms": report.duration_ms}
        _log.info("build", extra={"fields": fields | numbers})
        return report

    def poll(self, order: Poll, *, seconds_left: float | None = None) -> SensorPolled:
        """Let a sensor look once. ``seconds_left`` and what is raised: as for :meth:`carry_out`."""
        from runners import sensing

        run = order.run
        redactor = Redactor([*run.secrets, run.token, run.environment.get("ATTUNE_API_TOKEN", "")])
        folder, libraries = self._files(run)
        try:
            job, stdin = job_for(
                run, folder, group=self._packs.group(run.tenant), memory=self._memory, libraries=libraries
            )
        except (NoSuchFileError, RuntimeMissingError) as error:
            return sensing.could_not_start(order, str(error))
        job = sensing.adapted(job, folder, libraries)
        ended = self._sandbox.run(job, stdin, timeout=_affordable(run.timeout, seconds_left))
        report = sensing.report_of(order, ended, redactor)
        fields = {"tenant": run.tenant, "sensor": run.action_ref, "turn": run.attempt, "ok": report.error is None}
        numbers = {"events": len(report.events), "duration_ms": report.duration_ms}
        _log.info("poll", extra={"fields": fields | numbers})
        return report

    def _outcome(self, run: Run, timeout: float) -> Outcome:
        redactor = Redactor([*run.secrets, run.token, run.environment.get("ATTUNE_API_TOKEN", "")])
        if run.runner == "http":
            from runners.http import request  # 70 ms of imports that only this runner needs

            return Outcome(
                *request(run.parameters, timeout=timeout, redactor=redactor, cancellation=Cancellation(run.stop_url))
            )
        if run.runner == "container":
            return _container(run, timeout, redactor)
        return self._program(run, timeout, redactor)

    def _program(self, run: Run, timeout: float, redactor: Redactor) -> Outcome:
        folder, libraries = self._files(run)
        group = self._packs.group(run.tenant)
        try:
            job, stdin = job_for(run, folder, group=group, memory=self._memory, libraries=libraries)
        except (NoSuchFileError, RuntimeMissingError) as error:
            return Outcome(*could_not_start(str(error)))

        if run.artifacts is None:
            return self._followed(run, job, stdin, timeout, redactor)
        from runners import artifacts  # imports that only tasks of workflows need

        try:
            shared = artifacts.SharedFolder(self._sandbox.base, run.artifacts)
        except artifacts.ArtifactsError as error:
            return Outcome(*could_not_start(str(error)))
        try:
            job = msgspec.structs.replace(job, artifacts=str(shared.path))
            outcome = self._followed(run, job, stdin, timeout, redactor)
            return artifacts.stored(shared, outcome)
        finally:
            shared.remove()

    def _followed(self, run: Run, job: Job, stdin: bytes, timeout: float, redactor: Redactor) -> Outcome:
        def start(stdout: Capture, stderr: Capture) -> Ended:
            return self._sandbox.run(
                job, stdin, timeout=timeout, stdout=stdout, stderr=stderr, cancellation=Cancellation(run.stop_url)
            )

        return followed(run, start, timeout, redactor)

    def _files(self, run: Run) -> tuple[Path | None, Path | None]:
        """The root of the pack's files, and that of its libraries'."""
        if run.pack is None:
            return None, None
        if run.libraries is None:
            return self._packs.folder(run.tenant, run.pack), None
        if run.runner == "node":
            return self._packs.with_modules(run.tenant, run.pack, run.libraries)
        libraries = self._packs.folder(run.tenant, run.libraries)
        return self._packs.folder(run.tenant, run.pack), libraries


def _container(run: Run, timeout: float, redactor: Redactor) -> Outcome:
    from runners import docker  # imports that only this runner needs

    stdin = document(run.parameters, "json").encode()

    def start(stdout: Capture, stderr: Capture) -> Ended:
        return docker.run_container(docker.Engine(), run, stdin, timeout=timeout, stdout=stdout, stderr=stderr)

    try:
        return followed(run, start, timeout, redactor)
    except docker.EngineUnreachableError as error:
        return Outcome(*could_not_start(f"Containers cannot run here: {error}"))


def handle(event: Json, context: Any) -> None:
    """Lambda's entry point; ``event`` is a :class:`~chalicelib.protocol.Run` or ``Build`` as JSON."""
    work = msgspec.convert(event, Run | Build | Poll)
    seconds_left = None if context is None else context.get_remaining_time_in_millis() / 1000
    if isinstance(work, Build):
        results.send(_runner.build(work, seconds_left=seconds_left))
    elif isinstance(work, Poll):
        results.send(_runner.poll(work, seconds_left=seconds_left))
    else:
        results.send(_runner.carry_out(work, seconds_left=seconds_left), work.logs)


def _affordable(timeout: float, seconds_left: float | None) -> float:
    """The action's timeout, or what the invocation leaves of it: a result must still get out."""
    if seconds_left is None:
        return timeout
    return max(0.1, min(timeout, seconds_left - TERMINATION_GRACE - REPORTING))


def _memory() -> int | None:
    megabytes = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    return max(2 * _HEADROOM, int(megabytes) * _MEGABYTE - _HEADROOM) if megabytes else None


_runner = Runner(_sandbox, memory=_memory())
if "ATTUNE_RESULTS_QUEUE" in os.environ:
    results.prepare()
