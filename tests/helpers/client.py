"""A client for tests: the HTTP API as a person would type it, one method per thing that tests do often.

Methods return what is inside the envelope and raise :class:`ApiError` on an error answer. Tests of errors use
:meth:`AttuneClient.request`, which returns the answer as it came.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import httpx

Json = Any


class ApiError(Exception):
    """The API answered with an error. ``status`` is the HTTP status, ``body`` its decoded body (or text)."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.body = _body(response)
        request = response.request
        super().__init__(f"{request.method} {request.url.path} answered {self.status}: {self.body}")


class AttuneClient:
    """Speaks to the API at ``base_url``; signs in with :meth:`login` or with a ``token`` from elsewhere."""

    def __init__(self, base_url: str, *, token: str | None = None, timeout: float = 30) -> None:
        self.base_url = base_url.rstrip("/")
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout, limits=limits)
        self.token = token
        self.refresh_token: str | None = None
        self.tenant: str | None = None  # its slug, where it is not the default one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # The wire

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Json = None,
        content: bytes | str | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        files: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """The answer as it came, whatever its status. ``path`` is below ``/api/v1`` unless it starts with ``/``."""
        url = path if path.startswith("/") else f"/api/v1/{path}"
        all_headers = dict(headers or {})
        if self.token is not None:
            all_headers.setdefault("Authorization", f"Bearer {self.token}")
        wanted = {name: value for name, value in (params or {}).items() if value is not None}
        return self._http.request(
            method, url, json=json, content=content, params=wanted, headers=all_headers, files=files, data=data
        )

    def call(self, method: str, path: str, **options: Any) -> Json:
        """The decoded body of a success; raises :class:`ApiError` otherwise."""
        response = self.request(method, path, **options)
        if response.is_error:
            raise ApiError(response)
        return _body(response)

    def data(self, method: str, path: str, **options: Any) -> Json:
        """What is inside the ``data`` envelope."""
        return self.call(method, path, **options)["data"]

    def items(self, path: str, **params: Any) -> Iterator[dict[str, Json]]:
        """Every row of a list, page by page."""
        page = 1
        while True:
            answer = self.call("GET", path, params={**params, "page": page})
            yield from answer["items"]
            if not answer["pagination"]["has_next"]:
                return
            page += 1

    # Signing in

    def login(self, login: str, password: str) -> dict[str, Json]:
        return self._sign_in("/auth/login", {"login": login, "password": password})

    def register(self, login: str, password: str, display_name: str | None = None) -> dict[str, Json]:
        return self._sign_in("/auth/register", {"login": login, "password": password, "display_name": display_name})

    def _sign_in(self, path: str, body: dict[str, Json]) -> dict[str, Json]:
        tokens: dict[str, Json] = self.data("POST", path, json=body)
        self.token, self.refresh_token = tokens["access_token"], tokens["refresh_token"]
        return tokens

    def me(self) -> dict[str, Json]:
        return self._object("GET", "/auth/me")

    # Packs and what is in them

    def create_pack(
        self, ref: str, *, label: str | None = None, version: str = "1.0.0", **fields: Json
    ) -> dict[str, Json]:
        return self._object("POST", "packs", json={"ref": ref, "label": label or ref, "version": version, **fields})

    def get_pack(self, ref: str) -> dict[str, Json]:
        return self._object("GET", f"packs/{ref}")

    def delete_pack(self, ref: str) -> None:
        self.call("DELETE", f"packs/{ref}")

    def upload_pack(
        self, archive: bytes, *, force: bool = False, strict: bool = False, name: str = "pack.tar.gz"
    ) -> dict[str, Json]:
        """What ``POST /packs/upload`` answers, without its envelope."""
        return self._object("POST", "packs/upload", **upload_form(archive, force=force, strict=strict, name=name))

    def create_action(
        self,
        ref: str,
        pack_ref: str,
        *,
        entrypoint: str,
        runtime_ref: str = "core.shell",
        param_schema: Json = None,
        label: str | None = None,
        **fields: Json,
    ) -> dict[str, Json]:
        body = {
            "ref": ref,
            "pack_ref": pack_ref,
            "label": label or ref,
            "entrypoint": entrypoint,
            "runtime_ref": runtime_ref,
            "param_schema": param_schema,
            **fields,
        }
        return self._object("POST", "actions", json=body)

    def create_workflow(
        self, ref: str, definition: Json, *, param_schema: Json = None, **fields: Json
    ) -> dict[str, Json]:
        """A workflow of ``definition``, and the action of the same ref that runs it. A list is taken for its tasks."""
        body = {
            "ref": ref,
            "pack_ref": ref.partition(".")[0],
            "label": ref,
            "version": "1.0.0",
            "definition": {"tasks": definition} if isinstance(definition, list) else definition,
            "param_schema": param_schema,
            **fields,
        }
        return self._object("POST", "workflows", json=body)

    def create_trigger(
        self, ref: str, pack_ref: str | None = None, *, label: str | None = None, **fields: Json
    ) -> dict[str, Json]:
        body = {"ref": ref, "pack_ref": pack_ref, "label": label or ref, **fields}
        return self._object("POST", "triggers", json=body)

    def get_trigger(self, ref: str) -> dict[str, Json]:
        return self._object("GET", f"triggers/{ref}")

    def create_rule(
        self,
        ref: str,
        pack_ref: str,
        *,
        trigger_ref: str,
        action_ref: str,
        conditions: Json = None,
        action_params: Json = None,
        label: str | None = None,
        **fields: Json,
    ) -> dict[str, Json]:
        body = {
            "ref": ref,
            "pack_ref": pack_ref,
            "label": label or ref,
            "trigger_ref": trigger_ref,
            "action_ref": action_ref,
            "conditions": {} if conditions is None else conditions,
            "action_params": {} if action_params is None else action_params,
            **fields,
        }
        return self._object("POST", "rules", json=body)

    def update_rule(self, ref: str, **fields: Json) -> dict[str, Json]:
        return self._object("PUT", f"rules/{ref}", json=fields)

    def enable_rule(self, ref: str) -> dict[str, Json]:
        return self._object("POST", f"rules/{ref}/enable")

    def disable_rule(self, ref: str) -> dict[str, Json]:
        return self._object("POST", f"rules/{ref}/disable")

    def delete_rule(self, ref: str) -> None:
        self.call("DELETE", f"rules/{ref}")

    def try_rule(self, ref: str, payload: Json) -> dict[str, Json]:
        """What the rule would do with an event of this payload; nothing is stored or started."""
        return self._object("POST", f"rules/{ref}/test", json={"payload": payload})

    # Webhooks

    def enable_webhook(self, trigger_ref: str) -> str:
        """Switches the trigger's webhook on and returns its key."""
        key: str = self.data("POST", f"triggers/{trigger_ref}/webhooks/enable")["webhook_key"]
        return key

    def disable_webhook(self, trigger_ref: str) -> dict[str, Json]:
        return self._object("POST", f"triggers/{trigger_ref}/webhooks/disable")

    def regenerate_webhook(self, trigger_ref: str) -> str:
        key: str = self.data("POST", f"triggers/{trigger_ref}/webhooks/regenerate")["webhook_key"]
        return key

    def configure_webhook(self, trigger_ref: str, config: Json) -> dict[str, Json]:
        return self._object("PUT", f"triggers/{trigger_ref}/webhooks/config", json=config)

    def post_webhook(self, key: str, payload: Json, *, headers: Mapping[str, str] | None = None) -> dict[str, Json]:
        """Delivers ``payload`` in the envelope of semantics §2.4."""
        return self._object("POST", f"webhooks/{key}", json={"payload": payload}, headers=headers)

    # What happened

    def get_event(self, event_id: int) -> dict[str, Json]:
        return self._object("GET", f"events/{event_id}")

    def list_events(self, **filters: Any) -> list[dict[str, Json]]:
        return list(self.items("events", per_page=100, **filters))

    def list_enforcements(self, **filters: Any) -> list[dict[str, Json]]:
        return list(self.items("enforcements", per_page=100, **filters))

    def get_enforcement(self, enforcement_id: int) -> dict[str, Json]:
        return self._object("GET", f"enforcements/{enforcement_id}")

    def execute(
        self,
        action: str,
        parameters: Json = None,
        *,
        secrets: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Json,
    ) -> dict[str, Json]:
        """Starts an action and returns the execution as it was created."""
        body = {"action_ref": action, "parameters": parameters, **fields}
        if secrets is not None:
            body["secrets"] = list(secrets)
        return self._object("POST", "executions/execute", json=body, headers=headers)

    def create_execution(self, execution: Mapping[str, Json]) -> dict[str, Json]:
        """As the guide writes it: ``{"action": ref, "parameters": {...}, "secrets": [...]}``."""
        fields = dict(execution)
        return self.execute(fields.pop("action"), **fields)

    def get_execution(self, execution_id: int) -> dict[str, Json]:
        return self._object("GET", f"executions/{execution_id}")

    def list_executions(self, **filters: Any) -> list[dict[str, Json]]:
        return list(self.items("executions", per_page=100, **filters))

    def count_executions(self, **filters: Any) -> int:
        """How many executions match, without fetching them."""
        params = {"per_page": 1, "include_total": "true", **filters}
        total: int = self.call("GET", "executions", params=params)["pagination"]["total_items"]
        return total

    def children_of(self, execution_id: int) -> dict[str, list[dict[str, Json]]]:
        """The executions of a workflow run by the names of their tasks, in the order in which they were started."""
        found: dict[str, list[dict[str, Json]]] = {}
        for each in self.items("executions", parent=execution_id, per_page=100):
            found.setdefault(each["workflow_task"]["task_name"], []).insert(0, each)
        return found

    def history_of(self, execution_id: int) -> list[dict[str, Json]]:
        """The records of an execution's history."""
        return list(self.items(f"executions/{execution_id}/history"))

    def rerun(self, execution_id: int, *tasks: str, reset: bool = False) -> dict[str, Json]:
        body = {"tasks": list(tasks), "reset": reset}
        return self._object("POST", f"executions/{execution_id}/rerun", json=body)

    def cancel_execution(self, execution_id: int) -> dict[str, Json]:
        return self._object("POST", f"executions/{execution_id}/cancel")

    # Secrets and the datastore

    def create_secret(
        self, key: str, value: Json, *, encrypted: bool = True, owner_type: str = "system", **owner: Json
    ) -> dict[str, Json]:
        """Stores ``value`` under the ref ``key``; the name an action sees is what follows the last dot."""
        name = owner.pop("name", key.rsplit(".", 1)[-1])
        body = {"ref": key, "owner_type": owner_type, "name": name, "value": value, "encrypted": encrypted, **owner}
        return self._object("POST", "keys", json=body)

    def get_secret(self, key: str) -> dict[str, Json]:
        return self._object("GET", f"keys/{key}")

    def update_secret(self, key: str, **fields: Json) -> dict[str, Json]:
        return self._object("PUT", f"keys/{key}", json=fields)

    def delete_secret(self, key: str) -> None:
        self.call("DELETE", f"keys/{key}")

    def _object(self, method: str, path: str, **options: Any) -> dict[str, Json]:
        found: dict[str, Json] = self.data(method, path, **options)
        return found


def upload_form(
    archive: bytes, *, force: bool = False, strict: bool = False, name: str = "pack.tar.gz"
) -> dict[str, Any]:
    """The multipart form of ``POST /packs/upload``, as keywords of :meth:`AttuneClient.request`."""
    flags = {"force": str(force).lower(), "skip_tests": "true", "strict": str(strict).lower()}
    return {"files": {"pack": (name, archive, "application/gzip")}, "data": flags}


def _body(response: httpx.Response) -> Json:
    if response.headers.get("content-type", "").startswith("application/json") and response.content:
        return response.json()
    return response.text
