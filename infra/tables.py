"""The two DynamoDB tables, said once: the stack deploys these resources and the tests create the same ones.

*registry* holds what people define (packs, actions, rules, keys ...). Its indexes are local, because a cached reader
trusts a version number: what it loads after seeing version n must include write n, and only local indexes can be read
consistently.

*activity* holds what happens (events, enforcements, executions) and what is to happen (timers). Its indexes are
global, sparse and keys-only: each entry costs one write unit, and most rows leave ``by_state`` and ``by_due`` when they
end. ``by_due`` also carries what the tick needs of a timer, which spares it a read.
"""

from typing import Any

Resource = dict[str, Any]


def _keys(hash_key: str, range_key: str) -> list[dict[str, str]]:
    return [{"AttributeName": hash_key, "KeyType": "HASH"}, {"AttributeName": range_key, "KeyType": "RANGE"}]


def _index(name: str, hash_key: str, range_key: str, projection: str, *included: str) -> dict[str, Any]:
    return {
        "IndexName": name,
        "KeySchema": _keys(hash_key, range_key),
        "Projection": {"ProjectionType": projection} | ({"NonKeyAttributes": list(included)} if included else {}),
    }


def _attributes(**types: str) -> list[dict[str, str]]:
    return [{"AttributeName": name, "AttributeType": type_} for name, type_ in types.items()]


REGISTRY: Resource = {
    "Type": "AWS::DynamoDB::Table",
    "Properties": {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": _attributes(pk="S", sk="S", id="N", grp="S"),
        "KeySchema": _keys("pk", "sk"),
        "LocalSecondaryIndexes": [
            _index("by_id", "pk", "id", "KEYS_ONLY"),
            _index("by_group", "pk", "grp", "ALL"),
        ],
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
    },
}

ACTIVITY: Resource = {
    "Type": "AWS::DynamoDB::Table",
    "Properties": {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": _attributes(pk="S", id="N", su="S", pa="S", st="S", du="S", dt="N"),
        "KeySchema": _keys("pk", "id"),
        "GlobalSecondaryIndexes": [
            _index("by_subject", "su", "id", "KEYS_ONLY"),
            _index("by_parent", "pa", "id", "KEYS_ONLY"),
            _index("by_state", "st", "id", "KEYS_ONLY"),
            _index("by_due", "du", "dt", "INCLUDE", "tm", "tv", "dn", "sn", "tn"),
        ],
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "StreamSpecification": {"StreamViewType": "NEW_AND_OLD_IMAGES"},
        "TimeToLiveSpecification": {"AttributeName": "ttl", "Enabled": True},
    },
}

RESOURCES: dict[str, Resource] = {"RegistryTable": REGISTRY, "ActivityTable": ACTIVITY}


def create_request(resource: Resource, name: str) -> dict[str, Any]:
    """The arguments of DynamoDB's ``CreateTable`` that make ``resource`` without CloudFormation (recovery and expiry,
    which are calls of their own, left out)."""
    properties = resource["Properties"]
    request = {
        key: value
        for key, value in properties.items()
        if key not in ("PointInTimeRecoverySpecification", "TimeToLiveSpecification", "StreamSpecification")
    }
    if stream := properties.get("StreamSpecification"):
        request["StreamSpecification"] = {"StreamEnabled": True, **stream}
    return {"TableName": name, **request}
