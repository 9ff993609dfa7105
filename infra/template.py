"""The stack: what ``chalice package`` generates, and over it what Chalice cannot say (design §7).

Chalice contributes the functions of ``app.py`` with their triggers and the API's routes. :func:`overlay` adds the rest:
tables, queues, bucket, secret, the execution plane's function, rights per function, gateway responses, alarms. It is a
pure function of Chalice's template and the code's whereabouts, and the same template goes to AWS and to an emulator;
what differs between them is a parameter of the stack.

Names in ``app.py`` carry meaning here: a function is known by the ``name=`` of its decorator (:data:`FUNCTIONS`), and
``on_sqs_message(queue="attune-events")`` means this stack's events queue.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.domain.retention import LOG_CLASSES, log_kind
from infra import tables

Json = Any
Resources = dict[str, Json]

STAGE: Final = "live"
API: Final = "api"

# How long a consumer may take for a batch, and for how long SQS hides the batch from others meanwhile. AWS wants the
# second to be at least the first, with room for retries of the poll itself.
CONSUMER_SECONDS: Final = 30
HIDDEN_SECONDS: Final = 90
API_SECONDS: Final = 29  # API Gateway gives up after that
RUNNER_SECONDS: Final = 900  # Lambda's most
RUNNER_EVENT_AGE_SECONDS: Final = 60  # a run that found no room for so long comes back; less than any lease's grace
RETENTION_DAYS: Final = 30
ARTIFACT_DAYS: Final = 30  # for which a workflow run's files are kept, from when they were written
RECEIVES: Final = 5  # deliveries before a message counts as dead (AWS advises at least 5)


@dataclass(frozen=True)
class Code:
    """Where the zips lie: S3 keys in ``bucket``."""

    bucket: str
    control: str
    runner: str
    architecture: str = "arm64"


@dataclass(frozen=True)
class Scale:
    """How much runs at once: batches of one queue (AWS wants 2 to 1000), actions (0: what the account allows), of them
    those of one tenant (0: its quota decides); and how many requests come in.

    Not parameters of the stack, because a number that comes through a parameter reaches an emulator as text.
    """

    consumers: int = 50
    runners: int = 0
    share: int = 0
    requests: int = 1000  # a second, of all clients together; twice as many at once


def local_runners() -> int:
    """How many actions `make run` runs at once, unless it is told."""
    return max(8, 4 * (os.cpu_count() or 2))


@dataclass(frozen=True)
class Function:
    """What one function of ``app.py`` gets: memory in MB, seconds, and the rights its work needs."""

    memory: int
    timeout: int
    rights: tuple[str, ...]


# By name in app.py. Rights are names of statements in _statements().
FUNCTIONS: Final[Mapping[str, Function]] = {
    API: Function(512, API_SECONDS, ("data", "secret", "bucket", "list", "send events", "send executions")),
    "rules": Function(512, CONSUMER_SECONDS, ("data", "secret", "bucket", "list", "send executions")),
    "executor": Function(512, CONSUMER_SECONDS, ("data", "secret", "bucket", "list", "send executions", "run")),
    "conductor": Function(
        512, CONSUMER_SECONDS, ("data", "secret", "bucket", "list", "send events", "send executions")
    ),
    "lost": Function(256, CONSUMER_SECONDS, ("data", "secret", "bucket", "list", "send events", "send executions")),
    "tick": Function(
        512, CONSUMER_SECONDS, ("data", "secret", "bucket", "list", "send events", "send executions", "remove")
    ),
}

QUEUES: Final[Mapping[str, str]] = {  # what follows "attune-" in app.py -> logical id
    "events": "EventsQueue",
    "executions": "ExecutionsQueue",
    "results": "ResultsQueue",
}


class TemplateError(Exception):
    """Chalice's template is not what the overlay knows how to complete."""


def overlay(chalice: Mapping[str, Json], code: Code, scale: Scale) -> dict[str, Json]:
    """The complete template for ``chalice``, the template that ``chalice package`` made of app.py.

    Raises :class:`TemplateError` on a function or queue that has no entry here: whoever adds one to app.py says
    beside it, in this module, what it may do.
    """
    template = deepcopy(dict(chalice))
    generated: Resources = template["Resources"]
    resources: Resources = {}
    for logical_id, resource in generated.items():
        if resource["Type"] == "AWS::Serverless::Function":
            resources |= _function(logical_id, resource, code, scale)
        elif resource["Type"] == "AWS::Serverless::Api":
            resources |= _rest_api(resource["Properties"]["DefinitionBody"], scale)
        elif resource["Type"] != "AWS::IAM::Role":  # Chalice's roles are replaced by ours
            resources[logical_id] = resource
    resources |= deepcopy(tables.RESOURCES)
    runtime = next(r["Properties"]["Runtime"] for r in generated.values() if r["Type"] == "AWS::Serverless::Function")
    resources |= _queues() | _storage() | _runner(code, scale, runtime) | _tasks() | _alarms(sorted(FUNCTIONS))
    for table in tables.RESOURCES:
        resources[table] |= {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    template["Parameters"] = _PARAMETERS
    template["Conditions"] = _CONDITIONS
    template["Resources"] = resources
    template["Outputs"] = _OUTPUTS
    return template


_PARAMETERS: Final[Json] = {
    "Emulator": {
        "Type": "String",
        "Default": "no",
        "AllowedValues": ["yes", "no"],
        "Description": "Whether this is an emulator of AWS, where some properties are spelled differently.",
    },
    "ApiUrl": {
        "Type": "String",
        "Default": "",
        "Description": "Base URL under which clients reach the API. Empty: API Gateway's own.",
    },
    "SelfRegistration": {"Type": "String", "Default": "off", "AllowedValues": ["on", "off"]},
    "TenantIsolation": {
        "Type": "String",
        "Default": "on",
        "AllowedValues": ["on", "off"],
        "Description": "Lambda's tenant isolation mode for the execution plane.",
    },
    "PacksDir": {
        "Type": "String",
        "Default": "",
        "Description": "Directory POST /packs/register may read. Empty: the route is refused.",
    },
    "CorsOrigins": {
        "Type": "String",
        "Default": "",
        "Description": "Origins whose pages may call the API from a browser, separated by commas.",
    },
    "AuditDays": {
        "Type": "String",
        "Default": "",
        "AllowedPattern": "^([1-9][0-9]{0,4})?$",
        "Description": "Days that audit records are kept. Empty: for good.",
    },
    "Oidc": {
        "Type": "String",
        "Default": "",
        "Description": "The provider of identities, as JSON (docs/operating.md). Empty: there is none.",
    },
    "HttpAllowed": {
        "Type": "String",
        "Default": "",
        "Description": "Private networks and addresses that HTTP actions may call, separated by commas.",
    },
    "TaskImage": {
        "Type": "String",
        "Default": "",
        "Description": "The image of infra/task.Dockerfile. Empty: container actions do not run on ECS.",
    },
    "TaskSubnets": {"Type": "String", "Default": "", "Description": "Subnets of container actions, by comma."},
    "TaskClosedGroups": {
        "Type": "String",
        "Default": "",
        "Description": "Security groups, by comma, that let a task reach S3, its registry and its logs, and no more.",
    },
    "TaskOpenGroups": {
        "Type": "String",
        "Default": "",
        "Description": "Security groups, by comma, for container actions that ask for a network.",
    },
    "TaskPublicAddress": {"Type": "String", "Default": "off", "AllowedValues": ["on", "off"]},
    "AlarmTopic": {"Type": "String", "Default": "", "Description": "ARN of the SNS topic alarms go to, if any."},
    "Fingerprint": {"Type": "String", "Default": "", "Description": "Of the code and settings that were deployed."},
}

_CONDITIONS: Final[Json] = {
    "IsEmulator": {"Fn::Equals": [{"Ref": "Emulator"}, "yes"]},
    "HasApiUrl": {"Fn::Not": [{"Fn::Equals": [{"Ref": "ApiUrl"}, ""]}]},
    "HasPacksDir": {"Fn::Not": [{"Fn::Equals": [{"Ref": "PacksDir"}, ""]}]},
    "HasTasks": {"Fn::Not": [{"Fn::Equals": [{"Ref": "TaskImage"}, ""]}]},
    "HasAlarmTopic": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopic"}, ""]}]},
    "HasTenantIsolation": {"Fn::Equals": [{"Ref": "TenantIsolation"}, "on"]},
}

_NOTHING: Final = {"Ref": "AWS::NoValue"}


def _if(condition: str, then: Json, otherwise: Json = _NOTHING) -> Json:
    return {"Fn::If": [condition, then, otherwise]}


def _arn(logical_id: str) -> Json:
    return {"Fn::GetAtt": [logical_id, "Arn"]}


_GATEWAY_URL: Final = {"Fn::Sub": f"https://${{RestAPI}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}/{STAGE}"}

_OUTPUTS: Final[Json] = {
    "RestAPIId": {"Value": {"Ref": "RestAPI"}},
    "ApiUrl": {"Value": _if("HasApiUrl", {"Ref": "ApiUrl"}, _GATEWAY_URL)},
    "RegistryTable": {"Value": {"Ref": "RegistryTable"}},
    "ActivityTable": {"Value": {"Ref": "ActivityTable"}},
    "EventsQueue": {"Value": {"Ref": "EventsQueue"}},
    "ExecutionsQueue": {"Value": {"Ref": "ExecutionsQueue"}},
    "ResultsQueue": {"Value": {"Ref": "ResultsQueue"}},
    "EventsDeadQueue": {"Value": {"Ref": "EventsDeadQueue"}},
    "ExecutionsDeadQueue": {"Value": {"Ref": "ExecutionsDeadQueue"}},
    "ResultsDeadQueue": {"Value": {"Ref": "ResultsDeadQueue"}},
    "RunnerFunction": {"Value": {"Ref": "Runner"}},
    "Bucket": {"Value": {"Ref": "Bucket"}},
    "Secret": {"Value": {"Ref": "Secret"}},
    "TenantIsolation": {"Value": {"Ref": "TenantIsolation"}},
    "SelfRegistration": {"Value": {"Ref": "SelfRegistration"}},
    "Fingerprint": {"Value": {"Ref": "Fingerprint"}},
}


def environment_of(outputs: Mapping[str, str]) -> dict[str, str]:
    """The ``ATTUNE_*`` variables that the functions get, made from a deployed stack's outputs."""
    names = {
        "RegistryTable": "ATTUNE_REGISTRY_TABLE",
        "ActivityTable": "ATTUNE_ACTIVITY_TABLE",
        "EventsQueue": "ATTUNE_EVENTS_QUEUE",
        "ExecutionsQueue": "ATTUNE_EXECUTIONS_QUEUE",
        "ResultsQueue": "ATTUNE_RESULTS_QUEUE",
        "RunnerFunction": "ATTUNE_RUNNER_FUNCTION",
        "Bucket": "ATTUNE_BUCKET",
        "Secret": "ATTUNE_SECRET",
        "ApiUrl": "ATTUNE_API_URL",
        "TenantIsolation": "ATTUNE_TENANT_ISOLATION",
        "SelfRegistration": "ATTUNE_SELF_REGISTRATION",
    }
    return {variable: outputs[output] for output, variable in names.items()}


def _environment(scale: Scale, *, with_api: bool) -> Json:
    # The API's function must not refer to the API, which refers to the function: it gets only a URL of its own.
    return {
        "ATTUNE_REGISTRY_TABLE": {"Ref": "RegistryTable"},
        "ATTUNE_ACTIVITY_TABLE": {"Ref": "ActivityTable"},
        "ATTUNE_EVENTS_QUEUE": {"Ref": "EventsQueue"},
        "ATTUNE_EXECUTIONS_QUEUE": {"Ref": "ExecutionsQueue"},
        "ATTUNE_RESULTS_QUEUE": {"Ref": "ResultsQueue"},
        "ATTUNE_RUNNER_FUNCTION": {"Ref": "Runner"},
        "ATTUNE_BUCKET": {"Ref": "Bucket"},
        "ATTUNE_SECRET": {"Ref": "Secret"},
        "ATTUNE_API_URL": _if("HasApiUrl", {"Ref": "ApiUrl"}, _GATEWAY_URL) if with_api else {"Ref": "ApiUrl"},
        "ATTUNE_SELF_REGISTRATION": {"Ref": "SelfRegistration"},
        "ATTUNE_TENANT_ISOLATION": {"Ref": "TenantIsolation"},
        "ATTUNE_PACKS_DIR": _if("HasPacksDir", {"Ref": "PacksDir"}),
        "ATTUNE_CORS_ORIGINS": {"Ref": "CorsOrigins"},
        "ATTUNE_OIDC": {"Ref": "Oidc"},
        "ATTUNE_AUDIT_DAYS": {"Ref": "AuditDays"},
        "ATTUNE_TASK_IMAGE": {"Ref": "TaskImage"},
        "ATTUNE_TASK_CLUSTER": _if("HasTasks", {"Ref": "TaskCluster"}),
        "ATTUNE_TASK_ROLE": _if("HasTasks", _arn("TaskExecutionRole")),
        "ATTUNE_TASK_LOGS": _if("HasTasks", {"Ref": "TaskLogs"}),
        "ATTUNE_TASK_SUBNETS": {"Ref": "TaskSubnets"},
        "ATTUNE_TASK_CLOSED_GROUPS": {"Ref": "TaskClosedGroups"},
        "ATTUNE_TASK_OPEN_GROUPS": {"Ref": "TaskOpenGroups"},
        "ATTUNE_TASK_PUBLIC_ADDRESS": {"Ref": "TaskPublicAddress"},
        "ATTUNE_TENANT_SHARE": str(scale.share) if scale.share else _NOTHING,
        "ATTUNE_STAGE": STAGE,
    }


def _function(logical_id: str, resource: Json, code: Code, scale: Scale) -> Resources:
    """A function of app.py, with its role and log group."""
    properties = resource["Properties"]
    name = API if logical_id == "APIHandler" else logical_id.lower()
    if name not in FUNCTIONS:
        raise TemplateError(f"app.py has a function {name!r} that infra/template.py gives no memory, time and rights")
    function = FUNCTIONS[name]
    events = properties.get("Events", {}).values()
    consumed = [_consume(event["Properties"], scale) for event in events if event["Type"] == "SQS"]
    role, group = f"{logical_id}Role", f"{logical_id}Logs"
    properties |= {
        "CodeUri": {"Bucket": code.bucket, "Key": code.control},
        "Architectures": [code.architecture],
        "MemorySize": function.memory,
        "Timeout": function.timeout,
        "Role": _arn(role),
        "LoggingConfig": {"LogGroup": {"Ref": group}},
        "Environment": {"Variables": _environment(scale, with_api=name != API)},
    }
    statements = _statements()
    rights = [statements[right] for right in function.rights] + [_consuming(queue) for queue in consumed]
    return {logical_id: resource, role: _role(group, rights), group: _log_group(name)}


def _consume(event: Json, scale: Scale) -> str:
    """Points a trigger that names a queue at this stack's queue; returns the queue's logical id."""
    queue = event["Queue"]["Fn::Sub"].rpartition(":")[2].removeprefix("attune-")
    if queue not in QUEUES:
        raise TemplateError(f"app.py listens to a queue {queue!r}; infra/template.py knows {', '.join(QUEUES)}")
    event["Queue"] = _arn(QUEUES[queue])
    event["FunctionResponseTypes"] = ["ReportBatchItemFailures"]
    event["ScalingConfig"] = {"MaximumConcurrency": scale.consumers}
    return QUEUES[queue]


def _log_group(name: str) -> Json:
    return {
        "Type": "AWS::Logs::LogGroup",
        "Properties": {
            "LogGroupName": {"Fn::Sub": f"/attune/${{AWS::StackName}}/{name}"},
            "RetentionInDays": RETENTION_DAYS,
        },
    }


def _role(log_group: str, statements: Sequence[Json]) -> Json:
    logs = _allow(["logs:CreateLogStream", "logs:PutLogEvents"], _arn(log_group))
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
                ],
            },
            "Policies": [
                {
                    "PolicyName": "work",
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": [logs, *statements]},
                }
            ],
        },
    }


def _allow(actions: Sequence[str], *resources: Json) -> Json:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}


def _statements() -> dict[str, Json]:
    table_arns: list[Json] = []
    for table in tables.RESOURCES:
        table_arns += [_arn(table), {"Fn::Sub": f"${{{table}.Arn}}/index/*"}]
    data = ("GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem")
    return {
        "data": _allow([f"dynamodb:{action}" for action in data], *table_arns),
        # Of tenants that are deleted: what they have is spread over partitions that only a scan finds.
        "remove": _allow(["dynamodb:Scan", "dynamodb:BatchWriteItem"], *(_arn(table) for table in tables.RESOURCES)),
        "secret": _allow(["secretsmanager:GetSecretValue"], {"Ref": "Secret"}),
        "bucket": _allow(
            ["s3:GetObject", "s3:PutObject", "s3:PutObjectTagging", "s3:DeleteObject"], {"Fn::Sub": "${Bucket.Arn}/*"}
        ),
        # Without it S3 answers 403 instead of 404 for an object that is not there.
        "list": _allow(["s3:ListBucket"], _arn("Bucket")),
        "send events": _allow(["sqs:SendMessage"], _arn("EventsQueue")),
        "send executions": _allow(["sqs:SendMessage"], _arn("ExecutionsQueue")),
        "send results": _allow(["sqs:SendMessage"], _arn("ResultsQueue")),
        "run": _allow(["lambda:InvokeFunction"], _arn("Runner")),
    }


def _consuming(queue: str) -> Json:
    actions = ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes")
    return _allow([f"sqs:{action}" for action in actions], _arn(queue))


def _queues() -> Resources:
    resources: Resources = {}
    for queue in QUEUES.values():
        dead = queue.replace("Queue", "DeadQueue")
        resources[dead] = {
            "Type": "AWS::SQS::Queue",
            "Properties": {"MessageRetentionPeriod": 14 * 24 * 3600, "SqsManagedSseEnabled": True},
        }
        resources[queue] = {
            "Type": "AWS::SQS::Queue",
            "Properties": {
                "VisibilityTimeout": HIDDEN_SECONDS,
                "MessageRetentionPeriod": 4 * 24 * 3600,
                "SqsManagedSseEnabled": True,
                "RedrivePolicy": {"deadLetterTargetArn": _arn(dead), "maxReceiveCount": RECEIVES},
            },
        }
    return resources


def _forgotten(kind: str, days: int) -> Json:
    """The bucket's rule for blobs of one kind (chalicelib.store.blobs): they go when they are so old."""
    return {
        "Id": f"forget-{kind}",
        "Status": "Enabled",
        "TagFilters": [{"Key": "kind", "Value": kind}],
        "ExpirationInDays": days,
    }


def _storage() -> Resources:
    return {
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "BucketEncryption": {
                    "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
                },
                "PublicAccessBlockConfiguration": {
                    "BlockPublicAcls": True,
                    "BlockPublicPolicy": True,
                    "IgnorePublicAcls": True,
                    "RestrictPublicBuckets": True,
                },
                "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
                "LifecycleConfiguration": {
                    "Rules": [
                        {
                            "Id": "forget-abandoned-uploads",
                            "Status": "Enabled",
                            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                        },
                        *[_forgotten(log_kind(days), days) for days in LOG_CLASSES],
                        _forgotten("artifacts", ARTIFACT_DAYS),
                    ]
                },
            },
        },
        "Secret": {
            "Type": "AWS::SecretsManager::Secret",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "Description": "Signing and master keys. The deployment writes them once; see docs/operating.md.",
                "GenerateSecretString": {"SecretStringTemplate": "{}", "GenerateStringKey": "unset"},
            },
        },
    }


def _runner(code: Code, scale: Scale, runtime: str) -> Resources:
    """The execution plane: one function that may report results and nothing else (design §1)."""
    return {
        "RunnerLogs": _log_group("runner"),
        "RunnerRole": _role("RunnerLogs", [_statements()["send results"]]),
        "Runner": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": runtime,
                "Handler": "runners.handler.handle",
                "Code": {"S3Bucket": code.bucket, "S3Key": code.runner},
                "Architectures": [code.architecture],
                "MemorySize": 512,
                "Timeout": RUNNER_SECONDS,
                "EphemeralStorage": {"Size": 1024},
                "Role": _arn("RunnerRole"),
                "LoggingConfig": {"LogGroup": {"Ref": "RunnerLogs"}},
                "ReservedConcurrentExecutions": scale.runners or _NOTHING,
                "TenancyConfig": _if("HasTenantIsolation", {"TenantIsolationMode": "PER_TENANT"}),
                "Environment": {
                    "Variables": {
                        "ATTUNE_RESULTS_QUEUE": {"Ref": "ResultsQueue"},
                        "ATTUNE_API_URL": {"Ref": "ApiUrl"},
                        "ATTUNE_HTTP_ALLOWED": {"Ref": "HttpAllowed"},
                        "ATTUNE_STAGE": STAGE,
                    }
                },
            },
        },
        # No retries by Lambda: the conductor decides about them, and Lambda's would run an action twice unasked.
        # A runner that dies, or a run that finds no room, reaches the conductor through the failure destination. That
        # is a function and not a queue, where the record, which holds the run's secrets, would rest.
        "RunnerLost": {
            "Type": "AWS::Lambda::EventInvokeConfig",
            "DependsOn": ["RunnerLostPolicy"],  # AWS asks whether the function may call its destination
            "Properties": {
                "FunctionName": {"Ref": "Runner"},
                "Qualifier": "$LATEST",
                "MaximumRetryAttempts": 0,
                "MaximumEventAgeInSeconds": RUNNER_EVENT_AGE_SECONDS,
                "DestinationConfig": {"OnFailure": {"Destination": _arn("Lost")}},
            },
        },
        # Not in the role itself, which the function needs to be there, which the other one refers to.
        "RunnerLostPolicy": {
            "Type": "AWS::IAM::Policy",
            "Properties": {
                "PolicyName": "lost",
                "Roles": [{"Ref": "RunnerRole"}],
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [_allow(["lambda:InvokeFunction"], _arn("Lost"))],
                },
            },
        },
    }


_ACCOUNT_ECS: Final = "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}"


def _tasks() -> Resources:
    """What container actions need on ECS: a cluster, a role for the service (tasks have none), and the word that a task
    has stopped, which comes to the conductor without the overrides that hold its key."""
    pulls = ("GetAuthorizationToken", "BatchCheckLayerAvailability", "GetDownloadUrlForLayer", "BatchGetImage")
    # Which images are run is not known here; ECS fetches them, and code in a task has no role at all.
    role = _role("TaskLogs", [_allow([f"ecr:{action}" for action in pulls], "*")])
    trust = role["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]
    trust["Principal"] = {"Service": "ecs-tasks.amazonaws.com"}
    stopped = {"clusterArn": [_arn("TaskCluster")], "lastStatus": ["STOPPED"]}
    words = {"group": "group", "started_by": "startedBy", "stop_code": "stopCode", "reason": "stoppedReason"}
    report = {"kind": '"stopped"'} | {name: f"<{name}>" for name in words}
    resources: Resources = {
        "TaskCluster": {"Type": "AWS::ECS::Cluster"},
        "TaskLogs": _log_group("tasks"),
        "TaskExecutionRole": role,
        "ExecutorRunsTasks": {
            "Type": "AWS::IAM::Policy",
            "Properties": {
                "PolicyName": "tasks",
                "Roles": [{"Ref": "ExecutorRole"}],
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        _allow(["ecs:RegisterTaskDefinition"], "*"),  # AWS knows no narrower resource for it
                        _allow(
                            ["ecs:RunTask"],
                            {"Fn::Sub": f"{_ACCOUNT_ECS}:task-definition/attune-*"},
                        ),
                        _allow(["iam:PassRole"], _arn("TaskExecutionRole")),
                    ],
                },
            },
        },
        "TaskStopped": {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "EventPattern": {
                    "source": ["aws.ecs"],
                    "detail-type": ["ECS Task State Change"],
                    "detail": stopped,
                },
                "Targets": [
                    {
                        "Id": "results",
                        "Arn": _arn("ResultsQueue"),
                        "InputTransformer": {
                            "InputPathsMap": {name: f"$.detail.{field}" for name, field in words.items()},
                            "InputTemplate": "{"
                            + ", ".join(f'"{name}": {value}' for name, value in report.items())
                            + "}",
                        },
                    }
                ],
            },
        },
        "TaskStoppedToResults": {
            "Type": "AWS::SQS::QueuePolicy",
            "Properties": {
                "Queues": [{"Ref": "ResultsQueue"}],
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            **_allow(["sqs:SendMessage"], _arn("ResultsQueue")),
                            "Principal": {"Service": "events.amazonaws.com"},
                            "Condition": {"ArnEquals": {"aws:SourceArn": _arn("TaskStopped")}},
                        }
                    ],
                },
            },
        },
    }
    return {name: {**resource, "Condition": "HasTasks"} for name, resource in resources.items()}


def _rest_api(body: Json, scale: Scale) -> Resources:
    """Chalice's API as plain resources: SAM's own cannot spell binary types for both AWS and emulators."""
    binary = body.get("x-amazon-apigateway-binary-media-types", [])
    responses = _gateway_responses()
    digest = hashlib.sha256(json.dumps([body, responses], sort_keys=True).encode()).hexdigest()[:12]
    deployment = f"RestAPIDeployment{digest}"  # a deployment is a snapshot: another API needs another deployment
    return {
        "RestAPI": {
            "Type": "AWS::ApiGateway::RestApi",
            "Properties": {
                "Name": {"Ref": "AWS::StackName"},
                "Body": body,
                "EndpointConfiguration": {"Types": ["REGIONAL"]},
                "BinaryMediaTypes": _if("IsEmulator", binary, [kind.replace("/", "~1") for kind in binary]),
            },
        },
        **responses,
        deployment: {
            "Type": "AWS::ApiGateway::Deployment",
            "DependsOn": sorted(responses),
            "Properties": {"RestApiId": {"Ref": "RestAPI"}},
        },
        "RestAPIStage": {
            "Type": "AWS::ApiGateway::Stage",
            "Properties": {
                "RestApiId": {"Ref": "RestAPI"},
                "DeploymentId": {"Ref": deployment},
                "StageName": STAGE,
                "MethodSettings": _if(  # an emulator reads numbers as text and throttles nothing
                    "IsEmulator",
                    _NOTHING,
                    [
                        {
                            "ResourcePath": "/*",
                            "HttpMethod": "*",
                            "ThrottlingRateLimit": scale.requests,
                            "ThrottlingBurstLimit": 2 * scale.requests,
                        }
                    ],
                ),
            },
        },
    }


_GATEWAY_HEADERS: Final[Mapping[str, str]] = {  # as the API's own answers (chalicelib.api.adapter)
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Strict-Transport-Security": "max-age=31536000",
}


def _gateway_responses() -> Resources:
    """What API Gateway answers by itself, in the contract's error body (http-api.md 1.2)."""
    resources: Resources = {}
    for kind, status, message, code in (
        # API Gateway says this of every path it has no route for, and would answer 403.
        ("MISSING_AUTHENTICATION_TOKEN", 404, '"Not found"', "NOT_FOUND"),
        ("REQUEST_TOO_LARGE", 413, '"Request body too large"', "PAYLOAD_TOO_LARGE"),
        ("THROTTLED", 429, '"Too many requests"', "TOO_MANY_REQUESTS"),
        ("INTEGRATION_TIMEOUT", 504, '"The request took too long"', "GATEWAY_TIMEOUT"),
        ("DEFAULT_4XX", None, "$context.error.messageString", "BAD_REQUEST"),
        ("DEFAULT_5XX", None, "$context.error.messageString", "INTERNAL_SERVER_ERROR"),
    ):
        properties: dict[str, Json] = {
            "RestApiId": {"Ref": "RestAPI"},
            "ResponseType": kind,
            "ResponseTemplates": {"application/json": f'{{"error": {message}, "code": "{code}"}}'},
            "ResponseParameters": {
                f"gatewayresponse.header.{name}": f"'{value}'"
                for name, value in {"Access-Control-Allow-Origin": "*", **_GATEWAY_HEADERS}.items()
            },
        }
        if status:
            properties["StatusCode"] = str(status)
        name = "RestAPI" + kind.title().replace("_", "")
        resources[name] = {"Type": "AWS::ApiGateway::GatewayResponse", "Properties": properties}
    return resources


def _alarm(description: str, metric: Json, threshold: float, minutes: int = 1) -> Json:
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmDescription": description,
            "Statistic": "Maximum",
            "Period": 60,
            "EvaluationPeriods": minutes,
            "Threshold": threshold,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
            "AlarmActions": _if("HasAlarmTopic", [{"Ref": "AlarmTopic"}]),
            "OKActions": _if("HasAlarmTopic", [{"Ref": "AlarmTopic"}]),
            **metric,
        },
    }


def _queue_metric(queue: str, metric: str) -> Json:
    dimension = {"Name": "QueueName", "Value": {"Fn::GetAtt": [queue, "QueueName"]}}
    return {"Namespace": "AWS/SQS", "MetricName": metric, "Dimensions": [dimension]}


def _alarms(functions: Sequence[str]) -> Resources:
    resources: Resources = {}
    for short, queue in QUEUES.items():
        dead = queue.replace("Queue", "DeadQueue")
        resources[f"{dead}Alarm"] = _alarm(
            f"Messages of {short} could not be worked on {RECEIVES} times and are set aside.",
            _queue_metric(dead, "ApproximateNumberOfMessagesVisible"),
            threshold=1,
        )
        resources[f"{queue}Alarm"] = _alarm(
            f"Messages of {short} wait for more than five minutes.",
            _queue_metric(queue, "ApproximateAgeOfOldestMessage"),
            threshold=300,
            minutes=3,
        )
    resources["RestAPIAlarm"] = _alarm(
        "The API answers with server errors.",
        {
            "Namespace": "AWS/ApiGateway",
            "MetricName": "5XXError",
            "Statistic": "Sum",
            "Dimensions": [
                {"Name": "ApiName", "Value": {"Ref": "AWS::StackName"}},
                {"Name": "Stage", "Value": STAGE},
            ],
        },
        threshold=5,
        minutes=3,
    )
    for function in functions:
        logical_id = "APIHandler" if function == API else function.title()
        resources[f"{logical_id}Alarm"] = _alarm(
            f"The function {function} fails.",
            {
                "Namespace": "AWS/Lambda",
                "MetricName": "Errors",
                "Statistic": "Sum",
                "Dimensions": [{"Name": "FunctionName", "Value": {"Ref": logical_id}}],
            },
            threshold=3,
            minutes=3,
        )
    return resources
