"""What the store relies on DynamoDB for (design §2, rule 3): writes that happen once, together, and in order."""

from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError
from contract.conftest import ClientFactory

from infra import tables


@pytest.fixture
def table(aws: ClientFactory) -> str:
    name = f"registry-{uuid4().hex}"
    aws("dynamodb").create_table(**tables.create_request(tables.REGISTRY, name))
    return name


def _item(sort_key: str, **attributes: dict[str, str]) -> dict[str, Any]:
    return {"pk": {"S": "t#rule"}, "sk": {"S": sort_key}, **attributes}


def _get(aws: ClientFactory, table: str, sort_key: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (
        aws("dynamodb").get_item(TableName=table, Key=_item(sort_key), ConsistentRead=True).get("Item")
    )
    return found


def test_a_conditional_put_happens_once(aws: ClientFactory, table: str) -> None:
    put = {"TableName": table, "ConditionExpression": "attribute_not_exists(pk)"}
    aws("dynamodb").put_item(Item=_item("a", by={"S": "first"}), **put)

    with pytest.raises(ClientError) as refused:
        aws("dynamodb").put_item(
            Item=_item("a", by={"S": "second"}), ReturnValuesOnConditionCheckFailure="ALL_OLD", **put
        )

    assert refused.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
    assert refused.value.response["Item"]["by"] == {"S": "first"}  # the loser learns what is there without a read
    assert _get(aws, table, "a") == _item("a", by={"S": "first"})


def test_a_conditional_update_moves_a_row_from_an_allowed_state_only(aws: ClientFactory, table: str) -> None:
    aws("dynamodb").put_item(TableName=table, Item=_item("a", status={"S": "requested"}))
    claim = {
        "TableName": table,
        "Key": _item("a"),
        "UpdateExpression": "SET #s = :to",
        "ConditionExpression": "#s IN (:from1, :from2)",
        "ExpressionAttributeNames": {"#s": "status"},
        "ExpressionAttributeValues": {
            ":to": {"S": "running"},
            ":from1": {"S": "requested"},
            ":from2": {"S": "scheduled"},
        },
        "ReturnValues": "ALL_NEW",
    }

    claimed = aws("dynamodb").update_item(**claim)
    assert claimed["Attributes"]["status"] == {"S": "running"}

    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        aws("dynamodb").update_item(**claim)


def test_a_transaction_with_one_refused_write_writes_nothing_and_says_which(aws: ClientFactory, table: str) -> None:
    aws("dynamodb").put_item(TableName=table, Item=_item("there"))

    def put(sort_key: str) -> dict[str, Any]:
        condition = "attribute_not_exists(pk)"
        return {"Put": {"TableName": table, "Item": _item(sort_key), "ConditionExpression": condition}}

    with pytest.raises(ClientError) as refused:
        aws("dynamodb").transact_write_items(TransactItems=[put("new"), put("there"), put("newer")])

    assert refused.value.response["Error"]["Code"] == "TransactionCanceledException"
    reasons = [reason["Code"] for reason in refused.value.response["CancellationReasons"]]
    assert reasons == ["None", "ConditionalCheckFailed", "None"]
    assert _get(aws, table, "new") is None
    assert _get(aws, table, "newer") is None


def test_a_transaction_without_objection_writes_everything(aws: ClientFactory, table: str) -> None:
    puts = [{"Put": {"TableName": table, "Item": _item(str(number))}} for number in range(100)]  # the limit

    aws("dynamodb").transact_write_items(TransactItems=puts)

    rows = aws("dynamodb").query(
        TableName=table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "t#rule"}},
        ConsistentRead=True,
        Select="COUNT",
    )
    assert rows["Count"] == 100


def test_a_local_index_is_read_consistently(aws: ClientFactory, table: str) -> None:
    aws("dynamodb").put_item(TableName=table, Item=_item("a", id={"N": "7"}))

    found = aws("dynamodb").query(
        TableName=table,
        IndexName="by_id",
        KeyConditionExpression="pk = :pk AND id = :id",
        ExpressionAttributeValues={":pk": {"S": "t#rule"}, ":id": {"N": "7"}},
        ConsistentRead=True,
    )
    assert [row["sk"] for row in found["Items"]] == [{"S": "a"}]


def test_consumed_capacity_is_told_with_indexes(ministack: ClientFactory) -> None:
    name = f"registry-{uuid4().hex}"
    ministack("dynamodb").create_table(**tables.create_request(tables.REGISTRY, name))

    answer = ministack("dynamodb").put_item(
        TableName=name, Item=_item("a", id={"N": "7"}), ReturnConsumedCapacity="INDEXES"
    )

    assert answer["ConsumedCapacity"]["CapacityUnits"] == 2  # the row and its entry in by_id


def test_a_stream_tells_what_happened_to_a_row_in_order(aws: ClientFactory) -> None:
    name = f"activity-{uuid4().hex}"
    made = aws("dynamodb").create_table(**tables.create_request(tables.ACTIVITY, name))["TableDescription"]
    key = {"pk": {"S": "t#execution"}, "id": {"N": "1"}}

    aws("dynamodb").put_item(TableName=name, Item={**key, "status": {"S": "requested"}})
    for status in ("running", "completed"):
        aws("dynamodb").update_item(
            TableName=name,
            Key=key,
            UpdateExpression="SET #s = :s",
            ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues={":s": {"S": status}},
        )
    aws("dynamodb").delete_item(TableName=name, Key=key)

    changes = [
        (record["eventName"], _status(record, "OldImage"), _status(record, "NewImage"))
        for record in _stream(aws, made["LatestStreamArn"])
    ]
    assert changes == [
        ("INSERT", None, "requested"),
        ("MODIFY", "requested", "running"),
        ("MODIFY", "running", "completed"),
        ("REMOVE", "completed", None),
    ]


def _status(record: dict[str, Any], image: str) -> str | None:
    status: str | None = record["dynamodb"].get(image, {}).get("status", {}).get("S")
    return status


def _stream(aws: ClientFactory, arn: str) -> list[dict[str, Any]]:
    streams = aws("dynamodbstreams")
    records: list[dict[str, Any]] = []
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        iterator = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records += streams.get_records(ShardIterator=iterator)["Records"]
    return records
