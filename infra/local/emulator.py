"""The embedded AWS: MiniStack in this process, set up for one machine (design §7).

Everything the emulator is told by environment must be said before its first import, so :func:`load` imports it. The
few places where it is made to act more like AWS, or to keep within one machine, are here and nowhere else.
"""

import contextlib
import contextvars
import functools
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, NoReturn

from infra.local.fairness import Places, fair
from infra.local.fence import Fence
from infra.local.keys import AccessKey, Keys

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REGION: Final = "us-east-1"
_USUAL_PORT: Final = "4566"  # the emulator's own default
_SAVE_SECONDS: Final = 60  # for a snapshot
_FINISH_SECONDS: Final = 5  # for the messages that functions are at
_EXECUTION_PLANE: Final = "runners."  # what the handlers of functions that run tenants' code begin with
_ASYNCHRONOUS: contextvars.ContextVar[bool] = contextvars.ContextVar("asynchronous", default=False)


def settings(*, port: int, state: Path, bind: str, key: AccessKey) -> dict[str, str]:
    """The emulator's environment, which its functions inherit."""
    return {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": bind,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": key.id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        "AWS_SESSION_TOKEN": "",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "MINISTACK_REGION": REGION,
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state / "aws"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state / "s3"),
        "LAMBDA_EXECUTOR": "local",
        "LOG_LEVEL": os.environ.get("ATTUNE_AWS_LOG_LEVEL", "WARNING").upper(),
        # Listeners of services we do not use.
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
    }


class Emulator:
    """MiniStack, imported and adjusted. One per process. ``application`` takes requests from anybody."""

    def __init__(self, application: Application, keys: Keys, runners: int, logs: Path) -> None:
        self.application: Application = Fence(application, keys)
        self._logs = logs.open("w", buffering=1)
        self._turns: dict[str, Places] = {}
        self._turns_lock = threading.Lock()
        self._runners = runners
        self._let_asynchronous_invocations_wait()
        self._keep_signals_from_functions()
        self._let_replaced_functions_finish()
        self._log_to_a_file()
        self._wake_consumers_at_once()
        self._name_queues_without_the_port()
        self._deliver_fairly()
        self._write_state_fast()
        self._give_functions_their_keys(keys)
        if os.environ.get("ATTUNE_TASK_IMAGE"):
            from infra.local.tasks import run_as_on_fargate

            run_as_on_fargate()

    def _let_asynchronous_invocations_wait(self) -> None:
        """Bounds how many asynchronous invocations of one function run at once, the others waiting for their turn.

        AWS keeps asynchronous events in a queue of its own while a function is at its limit, and gives up on one when
        it gets too old. MiniStack starts a process for each at once, and with a limit set reports the surplus as
        failed.
        """
        from ministack.services import lambda_svc  # imports of the emulator are late: see load()

        execute, invoke_asynchronously = lambda_svc._execute_function, lambda_svc.invoke_async_with_retry

        def execute_in_turn(function: dict[str, Any], event: Any) -> Any:
            if not _ASYNCHRONOUS.get():
                return execute(function, event)
            places, tenant = self._places(function), _tenant_of(event)
            if not places.take(tenant, timeout=_event_age(function)):
                return lambda_svc._throttle_response("EventAgeExceeded", "Rate Exceeded: the event waited too long")
            _ASYNCHRONOUS.set(False)  # the emulator may call itself again for the same invocation
            try:
                return execute(function, event)
            finally:
                _ASYNCHRONOUS.set(True)
                places.give_back(tenant)

        def invoke_in_turn(function: dict[str, Any], event: Any) -> None:
            token = _ASYNCHRONOUS.set(True)
            try:
                invoke_asynchronously(function, event)  # copies the context into the thread it starts
            finally:
                _ASYNCHRONOUS.reset(token)

        lambda_svc._execute_function = execute_in_turn
        lambda_svc.invoke_async_with_retry = invoke_in_turn

    def _places(self, function: dict[str, Any]) -> Places:
        """A quarter of them is there for other tenants than the busiest."""
        name = (function.get("config") or function).get("FunctionName", "")
        with self._turns_lock:
            return self._turns.setdefault(name, Places(self._runners, most=max(1, self._runners - self._runners // 4)))

    def _keep_signals_from_functions(self) -> None:
        """Gives functions a session of their own: Ctrl-C in the terminal is for the stack, which ends them in order."""
        from ministack.core import lambda_runtime

        started_apart = functools.partial(subprocess.Popen, start_new_session=True)
        lambda_runtime.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": started_apart})

    def _let_replaced_functions_finish(self) -> None:
        """Ends the processes of a function that has changed when they have done what they are at, as AWS does.

        MiniStack ends them in the middle of an invocation, whose message then waits for its visibility timeout; or of
        their start, which it takes for a fault of the function, and ends all processes of that: the new ones, too.
        """
        from ministack.core import lambda_runtime
        from ministack.services import lambda_svc

        end, give_back = lambda_runtime.kill_workers, lambda_runtime.release_worker

        def end_unless_busy(workers: list[Any]) -> None:
            for worker in workers:
                worker.is_replaced = True
            end([worker for worker in workers if not worker._lock.locked()])

        def give_back_or_end(worker: Any) -> None:
            give_back(worker)
            if getattr(worker, "is_replaced", False):
                end([worker])

        lambda_runtime.kill_workers = end_unless_busy
        lambda_runtime.release_worker = lambda_svc.release_worker = give_back_or_end

    def _log_to_a_file(self) -> None:
        """Sends what functions log to one file as it comes, instead of to CloudWatch Logs.

        MiniStack waits 5 to 50 ms after each invocation for its last line, and keeps all lines and metrics in memory
        and in its state for ever.
        """
        from ministack.core import lambda_runtime
        from ministack.services import lambda_svc

        def read_stderr(worker: Any) -> None:
            with contextlib.suppress(OSError, ValueError):  # the process has ended
                for line in worker._proc.stderr:
                    self._logs.write(f"{worker.func_name} {line}")

        lambda_runtime.Worker._read_stderr = read_stderr
        lambda_runtime.Worker._drain_stderr_bounded = lambda _: ""
        lambda_svc._emit_lambda_logs = lambda *_, **__: None
        lambda_svc._emit_lambda_metrics = lambda *_, **__: None

    def _wake_consumers_at_once(self) -> None:
        """Lets queues' consumers notice a message within 5 ms, not 50: each write to a table with a stream counts as a
        false alarm, after which MiniStack looks away for that long. And a delayed message when its delay is over, as
        the long polls of AWS do: MiniStack looks for those once a second."""
        from ministack.services import lambda_svc

        alarm = lambda_svc._esm_wake

        def wait(timeout: float) -> bool:
            return bool(alarm.wait(min(timeout, _until_a_message_shows())))

        lambda_svc._ESM_IDLE_WAKE_GAP_SECONDS = 0.005
        lambda_svc._esm_wake = types.SimpleNamespace(set=alarm.set, clear=alarm.clear, wait=wait)

    def _name_queues_without_the_port(self) -> None:
        """Keeps queues findable when a state is opened on another port: MiniStack knows a queue by its URL, port
        included, and the URLs that functions were given are part of the state."""
        from ministack.services import sqs

        sqs.DEFAULT_PORT = _USUAL_PORT
        sqs._CANONICAL_NETLOC = f"{sqs.DEFAULT_HOST}:{_USUAL_PORT}"

    def _deliver_fairly(self) -> None:
        """Lets message groups share a standard queue, as they do on AWS."""
        from ministack.services import sqs

        sqs._collect_msgs = fair(sqs._collect_msgs)

    def _write_state_fast(self) -> None:
        """Encodes the state in one go: ``json.dump`` to a file does it piece by piece in Python, ten times slower."""
        from ministack.core import persistence

        def dump(value: Any, file: Any, **options: Any) -> None:
            file.write(json.dumps(value, **options))

        persistence.json = types.SimpleNamespace(**{**vars(json), "dump": dump})

    def _give_functions_their_keys(self, keys: Keys) -> None:
        """Gives each function credentials that the fence knows, in place of its account's number: what runs tenants'
        code gets a key that can send to the results queue, as its role on AWS, the others the stack's own."""
        from ministack.core import lambda_runtime
        from ministack.services import lambda_svc

        def execution_credentials(config: dict[str, Any]) -> dict[str, str]:
            key = keys.own
            if str(config.get("Handler", "")).startswith(_EXECUTION_PLANE):
                variables = (config.get("Environment") or {}).get("Variables") or {}
                key = keys.sender(variables.get("ATTUNE_RESULTS_QUEUE", ""))
            return {"AWS_ACCESS_KEY_ID": key.id, "AWS_SECRET_ACCESS_KEY": key.secret, "AWS_SESSION_TOKEN": ""}

        lambda_runtime.execution_credentials = execution_credentials
        lambda_svc.execution_credentials = execution_credentials

    def warm(self, function: str) -> None:
        """Starts the process of a deployed function, so that its first invocation finds it imported.

        Raises RuntimeError with the reason when its module cannot be imported.
        """
        from ministack.core import lambda_runtime
        from ministack.services import lambda_svc

        record = lambda_svc._functions[function]
        worker, _ = lambda_runtime.acquire_worker(function, record["config"], record["code_zip"])
        try:
            lambda_runtime.ensure_spawned(worker)
        finally:
            lambda_runtime.release_worker(worker)

    def functions(self) -> list[str]:
        """Names of the deployed functions."""
        from ministack.services import lambda_svc

        return list(lambda_svc._functions)

    def save(self) -> None:
        """Writes the state as a clean stop would, from a snapshot of it: a forked process writes what was true at the
        moment of the fork, while this one goes on. Does nothing where a process with threads cannot be forked safely.
        """
        if sys.platform != "linux":
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: the child only reads and writes
            child = os.fork()
        if child == 0:
            self._write_and_leave()
        deadline = time.monotonic() + _SAVE_SECONDS
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:  # it waits for a lock that a thread held at the fork: the next will do
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return
            time.sleep(0.05)

    def _write_and_leave(self) -> NoReturn:
        from ministack import app
        from ministack.core.persistence import save_all

        try:
            logging.disable()  # its locks may be held by threads that are not here
            save_all(app._build_persistence_save_dict())
        finally:
            os._exit(0)

    def finish(self) -> None:
        """Hands functions no more messages, and waits for those that they have: what is cut off in the middle comes
        again only after its visibility timeout, too late for a timer."""
        from ministack.services import lambda_svc

        lambda_svc._poll_sqs = lambda: False
        deadline = time.monotonic() + _FINISH_SECONDS
        time.sleep(0.05)  # a look at the queues that has begun ends
        while lambda_svc._esm_inflight and time.monotonic() < deadline:
            time.sleep(0.02)

    def stop_functions(self) -> None:
        """Ends the functions' processes and removes their working folders."""
        from ministack.core import lambda_runtime

        lambda_runtime.reset()


def _until_a_message_shows() -> float:
    """Seconds until the next message that is hidden now can be received."""
    from ministack.services import sqs

    now = time.time()
    queues = list(sqs._queues._data.values())
    shows = (message.get("visible_at", 0) for queue in queues for message in list(queue["messages"]))
    return min((at - now for at in shows if at > now), default=math.inf)


def _tenant_of(event: Any) -> str | None:
    """Whose work the runner is invoked for (``chalicelib.protocol``)."""
    work = event.get("run", event) if isinstance(event, dict) else {}
    return work.get("tenant") if isinstance(work, dict) else None


def _event_age(function: dict[str, Any]) -> float:
    """Seconds an asynchronous event for ``function`` may wait (AWS: six hours unless configured)."""
    by_qualifier = function.get("event_invoke_configs") or {}
    configured = function.get("event_invoke_config") or by_qualifier.get("$LATEST") or {}
    return float(configured.get("MaximumEventAgeInSeconds") or 21_600)


def load(environment: dict[str, str], *, keys: Keys, runners: int, logs: Path) -> Emulator:
    """Imports the emulator with ``environment`` set. ``keys``: who may use it. ``runners``: actions that may run at
    once. ``logs``: the file that takes what functions log."""
    os.environ.update(environment)
    from ministack import app

    logging.getLogger("ministack").setLevel(environment["LOG_LEVEL"])
    return Emulator(app.app, keys, runners, logs)
