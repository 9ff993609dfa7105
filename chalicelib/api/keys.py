"""Keys: secrets and datastore values (http-api 1.4). Every value is sealed at rest; ``encrypted`` decides who may read
it back (README 11)."""

from datetime import datetime
from typing import Annotated, Final

import msgspec

from chalicelib.api.errors import BadRequest, Forbidden, NotFound, ValidationFailed
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.views import Body, Data, Id, Json, Label, Page, PerPageQuery, Ref, Success, View, given
from chalicelib.domain import refs
from chalicelib.domain.entities import Key, OwnerType
from chalicelib.store.registry import Delete, Put

MAX_VALUE: Final = 256 * 1024  # bytes as JSON; sealed and encoded it still fits a DynamoDB item (400 KB)

Owner = Annotated[str, msgspec.Meta(max_length=255)]


class KeyResponse(View, kw_only=True, frozen=True):
    """``local_ref`` is the ref within its owner's scope: the published client (attune-sdk 0.5) asks for it."""

    id: int
    ref: str
    local_ref: str
    owner_type: OwnerType
    owner: str | None
    owner_identity: int | None
    owner_pack: int | None
    owner_pack_ref: str | None
    owner_action: int | None
    owner_action_ref: str | None
    owner_sensor: int | None
    owner_sensor_ref: str | None
    name: str
    encrypted: bool
    value: Json
    created: datetime
    updated: datetime


class KeySummary(View, kw_only=True, frozen=True):
    id: int
    ref: str
    local_ref: str
    owner_type: OwnerType
    owner: str | None
    name: str
    encrypted: bool
    created: datetime


class CreateKeyRequest(Body, kw_only=True, frozen=True):
    """``ref`` is the whole ref. A client that sends ``local_ref`` instead gets the ref built from the owner's."""

    owner_type: OwnerType
    name: Label
    value: Json
    ref: Ref | None = None
    local_ref: Ref | None = None
    owner: Owner | None = None
    owner_identity: Id | None = None
    owner_identity_login: Owner | None = None
    owner_pack: Id | None = None
    owner_pack_ref: Owner | None = None
    owner_action: Id | None = None
    owner_action_ref: Owner | None = None
    owner_sensor: Id | None = None
    owner_sensor_ref: Owner | None = None
    encrypted: bool = False


class UpdateKeyRequest(Body, kw_only=True, frozen=True):
    name: Label | None = None
    value: Json = None
    encrypted: bool | None = None


class KeyQuery(PerPageQuery, kw_only=True, frozen=True):
    owner_type: OwnerType | None = None
    owner: str | None = None


class _Owner(msgspec.Struct, kw_only=True, frozen=True):
    """Whose a key is: the fields of :class:`Key` by that name, and what its refs begin with."""

    prefix: str
    owner: str | None = None
    owner_identity: int | None = None
    owner_pack: int | None = None
    owner_pack_ref: str | None = None
    owner_action: int | None = None
    owner_action_ref: str | None = None
    owner_sensor: int | None = None
    owner_sensor_ref: str | None = None


@ROUTES.get("/api/v1/keys", needs=grant("keys", "read"), query=KeyQuery, returns=Page[KeySummary], tag="keys")
def list_keys(call: Call) -> Page[KeySummary]:
    """Keys that the caller may read, by ref, without their values."""
    query: KeyQuery = call.query
    rows = [
        key
        for key in call.readable("keys", call.registry.keys.list())
        if query.owner_type in (None, key.owner_type) and query.owner in (None, key.owner)
    ]
    return Page.slice_of(rows, query.paging, lambda key: KeySummary.of(key, local_ref=local_ref(key)))


@ROUTES.post(
    "/api/v1/keys",
    needs=grant("keys", "create"),
    body=CreateKeyRequest,
    returns=Data[KeyResponse],
    status=201,
    tag="keys",
    errors=(409,),
)
def create_key(call: Call) -> Data[KeyResponse]:
    """Store a key; the answer holds its value in clear. 400: the owner does not exist."""
    body: CreateKeyRequest = call.body
    owner = _owner_of(call, body)
    fields = msgspec.structs.asdict(owner)
    prefix = fields.pop("prefix")
    key = Key(
        id=call.services.new_id(),
        ref=refs.key_ref(_ref_of(body, prefix)),
        created=call.now,
        updated=call.now,
        owner_type=body.owner_type,
        name=body.name,
        encrypted=body.encrypted,
        sealed="",
        **fields,
    )
    call.require("keys", "create", call.context_of(key))
    key = msgspec.structs.replace(key, sealed=_seal(call, key.ref, body.value))
    call.registry.commit(Put(key, new=True))
    return Data(_response(key, body.value), "Key created successfully")


@ROUTES.get("/api/v1/keys/{ref}", needs=grant("keys", "read"), returns=Data[KeyResponse], tag="keys", errors=(404,))
def get_key(call: Call, ref: str) -> Data[KeyResponse]:
    """One key. An encrypted value is null unless the caller may decrypt it."""
    key = call.registry.keys.get(ref)
    if key is None or not call.may_read("keys", key):
        raise NotFound.of("Key", ref)
    return Data(_revealed(call, key))


@ROUTES.put(
    "/api/v1/keys/{ref}",
    needs=grant("keys", "update"),
    body=UpdateKeyRequest,
    returns=Data[KeyResponse],
    tag="keys",
    errors=(404, 409),
)
def update_key(call: Call, ref: str) -> Data[KeyResponse]:
    """Change name, value or who may read it back."""
    body: UpdateKeyRequest = call.body
    key = _to_change(call, ref, "update")
    changes = given(body, "name", "encrypted")
    if body.encrypted is False and key.encrypted and not call.allows("keys", "decrypt", call.context_of(key)):
        # Otherwise whoever may update could read what they may not decrypt.
        raise Forbidden.lacking("keys", "decrypt")
    if body.value is not None:
        changes["sealed"] = _seal(call, key.ref, body.value)
    key = msgspec.structs.replace(key, updated=call.now, **changes)
    call.registry.commit(Put(key))
    return Data(_revealed(call, key), "Key updated successfully")


@ROUTES.delete("/api/v1/keys/{ref}", needs=grant("keys", "delete"), returns=Success, tag="keys", errors=(404,))
def delete_key(call: Call, ref: str) -> Success:
    """Forget a key."""
    key = _to_change(call, ref, "delete")
    call.registry.commit(Delete("key", key.ref))
    return Success(f"Key '{ref}' deleted successfully")


def local_ref(key: Key) -> str:
    """The ref within the owner's scope; a ref of free choice is its own."""
    return key.ref.removeprefix(_prefix(key.owner_type, key.owner) + ".")


def _to_change(call: Call, ref: str, action: str) -> Key:
    key = call.registry.keys.get(ref)
    if key is None:
        raise NotFound.of("Key", ref)
    call.require("keys", action, call.context_of(key))
    return key


def _revealed(call: Call, key: Key) -> KeyResponse:
    if key.encrypted and not call.allows("keys", "decrypt", call.context_of(key)):
        return _response(key, None)
    if key.encrypted:
        call.reveals("key", key.ref)
    return _response(key, call.services.cipher.open(call.tenant, key.ref, key.sealed))


def _response(key: Key, value: Json) -> KeyResponse:
    return KeyResponse.of(key, value=value, local_ref=local_ref(key))


def _seal(call: Call, ref: str, value: Json) -> str:
    if len(msgspec.json.encode(value)) > MAX_VALUE:
        raise ValidationFailed(f"'value': must have at most {MAX_VALUE} bytes", {"path": "value"})
    return call.services.cipher.seal(call.tenant, ref, value)


def _ref_of(body: CreateKeyRequest, prefix: str) -> str:
    if body.ref is not None:
        return body.ref
    if body.local_ref is not None:
        return f"{prefix}.{body.local_ref}"
    raise ValidationFailed("'ref': Missing required field", {"path": "ref", "problem": "Missing required field"})


def _prefix(owner_type: OwnerType, owner: str | None) -> str:
    if owner_type in ("system", "identity"):
        return owner_type if owner is None else f"{owner_type}.{owner}"
    return owner or owner_type


def _owner_of(call: Call, body: CreateKeyRequest) -> _Owner:
    """The owner that the body names by id, by ref or generically; raises BadRequest if there is none such."""
    match body.owner_type:
        case "system":
            return _Owner(prefix="system")
        case "identity":
            identity = _identity_of(call, body)
            return _Owner(prefix=_prefix("identity", str(identity)), owner=str(identity), owner_identity=identity)
        case "pack":
            pack_ref = body.owner_pack_ref or body.owner
            packs = call.registry.packs
            pack = packs.find(pack_ref) if pack_ref else packs.by_id(body.owner_pack or 0)
            if pack is None or not call.access.sees_pack(pack):
                raise _unknown_owner("pack", pack_ref or body.owner_pack)
            return _Owner(prefix=pack.ref, owner=pack.ref, owner_pack=pack.id, owner_pack_ref=pack.ref)
        case "action":
            action_ref = body.owner_action_ref or body.owner
            actions = call.registry.actions
            action = actions.find(action_ref) if action_ref else actions.by_id(body.owner_action or 0)
            if action is None:
                raise _unknown_owner("action", action_ref or body.owner_action)
            return _Owner(prefix=action.ref, owner=action.ref, owner_action=action.id, owner_action_ref=action.ref)
        case "sensor":
            sensor_ref = body.owner_sensor_ref or body.owner
            sensors = call.registry.sensors
            sensor = sensors.find(sensor_ref) if sensor_ref else sensors.by_id(body.owner_sensor or 0)
            if sensor is None:
                raise _unknown_owner("sensor", sensor_ref or body.owner_sensor)
            return _Owner(prefix=sensor.ref, owner=sensor.ref, owner_sensor=sensor.id, owner_sensor_ref=sensor.ref)


def _identity_of(call: Call, body: CreateKeyRequest) -> int:
    """The id of the identity that the body names; nobody named is the caller."""
    identities = call.registry.identities
    named = body.owner_identity_login or body.owner
    if body.owner_identity is not None or (named is not None and named.isdecimal() and len(named) < 20):
        wanted = body.owner_identity if body.owner_identity is not None else int(named or 0)
        identity = identities.by_id(wanted)
        if identity is None:
            raise _unknown_owner("identity", wanted)
        return identity.id
    if named is None:
        return call.principal.identity_id
    identity = identities.get(named)
    if identity is None:
        raise _unknown_owner("identity", named)
    return identity.id


def _unknown_owner(kind: str, named: object) -> BadRequest:
    return BadRequest(f"Owner {kind} '{named}' not found" if named else f"A key of owner_type '{kind}' needs its owner")
