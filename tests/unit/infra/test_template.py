"""The overlay: what every function may do, and that the template holds together."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import msgspec
import pytest

from chalicelib.protocol import TaskStopped
from infra import tables
from infra.template import FUNCTIONS, QUEUES, Code, Scale, TemplateError, environment_of, overlay

CODE = Code(bucket="code", control="control.zip", runner="runner.zip")


def _function(handler: str, **events: Any) -> dict[str, Any]:
    properties = {"Runtime": "python3.11", "Handler": handler, "CodeUri": "./deployment.zip", "Events": events}
    return {"Type": "AWS::Serverless::Function", "Properties": properties}


def _listens(queue: str) -> dict[str, Any]:
    arn = f"arn:${{AWS::Partition}}:sqs:${{AWS::Region}}:${{AWS::AccountId}}:{queue}"
    return {"Type": "SQS", "Properties": {"Queue": {"Fn::Sub": arn}, "BatchSize": 10}}


@pytest.fixture
def chalice() -> dict[str, Any]:
    """What Chalice generates for an app.py like ours, as far as the overlay looks at it."""
    integration = {"uri": {"Fn::Sub": "arn:aws:apigateway:lambda:path/functions/${APIHandler.Arn}/invocations"}}
    body = {
        "swagger": "2.0",
        "paths": {"/health": {"get": {"x-amazon-apigateway-integration": integration}}},
        "x-amazon-apigateway-binary-media-types": ["multipart/form-data"],
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Outputs": {},
        "Resources": {
            "APIHandler": _function("app.app"),
            "Rules": _function("app.on_events", Source=_listens("attune-events")),
            "Executor": _function("app.on_executions", Source=_listens("attune-executions")),
            "Conductor": _function("app.on_results", Source=_listens("attune-results")),
            "Lost": _function("app.on_lost"),
            "Tick": _function(
                "app.on_minute", Every={"Type": "Schedule", "Properties": {"Schedule": "rate(1 minute)"}}
            ),
            "RulesRole": {"Type": "AWS::IAM::Role", "Properties": {}},
            "RestAPI": {"Type": "AWS::Serverless::Api", "Properties": {"DefinitionBody": body}},
        },
    }


@pytest.fixture
def template(chalice: dict[str, Any]) -> dict[str, Any]:
    return overlay(chalice, CODE, Scale(consumers=7))


def _walk(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from node.items()
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def _references(node: Any) -> set[str]:
    found: set[str] = set()
    for key, value in _walk(node):
        if key == "Ref":
            found.add(value)
        elif key == "Fn::GetAtt":
            found.add(value[0])
        elif key == "Fn::Sub":
            text = value if isinstance(value, str) else value[0]
            found |= {part.partition("}")[0].partition(".")[0] for part in text.split("${")[1:]}
    return {name for name in found if not name.startswith("AWS::")}


def _rights(template: dict[str, Any], role: str) -> list[tuple[str, set[str]]]:
    [policy] = template["Resources"][role]["Properties"]["Policies"]
    return [
        (action, _references(statement["Resource"]))
        for statement in policy["PolicyDocument"]["Statement"]
        for action in statement["Action"]
    ]


def test_every_reference_leads_somewhere(template: dict[str, Any]) -> None:
    known = template["Resources"].keys() | template["Parameters"].keys()
    assert _references(template["Resources"]) <= known
    assert _references(template["Outputs"]) <= known
    conditions = {value[0] for key, value in _walk(template) if key == "Fn::If"}
    assert conditions <= template["Conditions"].keys()


def test_no_resource_needs_itself(template: dict[str, Any]) -> None:
    needs = {
        name: _references(resource) & template["Resources"].keys() for name, resource in template["Resources"].items()
    }
    while needs:
        ready = {name for name, others in needs.items() if not others & needs.keys()}
        assert ready, f"a cycle among {sorted(needs)}"
        needs = {name: others for name, others in needs.items() if name not in ready}


def test_chalices_template_is_left_as_it_was(chalice: dict[str, Any]) -> None:
    before = deepcopy(chalice)
    overlay(chalice, CODE, Scale())
    assert chalice == before


def test_the_execution_plane_may_report_and_nothing_else(template: dict[str, Any]) -> None:
    rights = _rights(template, "RunnerRole")
    assert {action for action, _ in rights} == {"logs:CreateLogStream", "logs:PutLogEvents", "sqs:SendMessage"}
    assert [resources for action, resources in rights if action == "sqs:SendMessage"] == [{"ResultsQueue"}]
    variables = template["Resources"]["Runner"]["Properties"]["Environment"]["Variables"]
    assert _references(variables) == {"ResultsQueue", "ApiUrl", "HttpAllowed"}  # the last two are parameters


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("ExecutorRole", True), ("APIHandlerRole", False), ("RulesRole", False), ("ConductorRole", False)],
)
def test_only_the_executor_may_start_a_run(template: dict[str, Any], role: str, *, allowed: bool) -> None:
    rights = [(action, resources) for action, resources in _rights(template, role) if action.startswith("lambda:")]
    assert rights == ([("lambda:InvokeFunction", {"Runner"})] if allowed else [])


def test_no_right_is_given_on_everything(template: dict[str, Any]) -> None:
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::IAM::Role":
            for action, resources in _rights(template, name):
                assert "*" not in action
                # ECS pulls images of any registry's for its tasks, whose code has no role.
                assert resources or action.startswith("ecr:"), f"{name} has {action} on something outside the stack"


@pytest.mark.parametrize(("function", "queue"), [("Rules", "EventsQueue"), ("Conductor", "ResultsQueue")])
def test_consumers_read_this_stacks_queue_and_answer_for_each_message(
    template: dict[str, Any], function: str, queue: str
) -> None:
    source = template["Resources"][function]["Properties"]["Events"]["Source"]["Properties"]
    assert source["Queue"] == {"Fn::GetAtt": [queue, "Arn"]}
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["ScalingConfig"] == {"MaximumConcurrency": 7}
    assert ("sqs:DeleteMessage", {queue}) in _rights(template, f"{function}Role")


@pytest.mark.parametrize("queue", QUEUES.values())
def test_a_message_is_hidden_for_longer_than_its_consumer_may_take(template: dict[str, Any], queue: str) -> None:
    properties = template["Resources"][queue]["Properties"]
    slowest = max(function.timeout for function in FUNCTIONS.values())
    assert properties["VisibilityTimeout"] > slowest  # AWS refuses the mapping otherwise
    dead = properties["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
    assert template["Resources"][dead]["Type"] == "AWS::SQS::Queue"


def test_a_failed_run_is_not_retried_but_told_to_the_conductor(template: dict[str, Any]) -> None:
    properties = template["Resources"]["RunnerLost"]["Properties"]
    assert properties["MaximumRetryAttempts"] == 0
    assert properties["DestinationConfig"]["OnFailure"]["Destination"] == {"Fn::GetAtt": ["Lost", "Arn"]}
    policy = template["Resources"]["RunnerLostPolicy"]["Properties"]
    assert policy["Roles"] == [{"Ref": "RunnerRole"}]
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Resource"] == [{"Fn::GetAtt": ["Lost", "Arn"]}]


def test_tables_come_from_their_one_definition_and_outlive_the_stack(template: dict[str, Any]) -> None:
    for name, table in tables.RESOURCES.items():
        assert template["Resources"][name]["Properties"] == table["Properties"]
        assert template["Resources"][name]["DeletionPolicy"] == "Retain"
        assert "DeletionPolicy" not in table


def test_binary_types_are_spelled_for_aws_and_for_emulators(template: dict[str, Any]) -> None:
    spelled = template["Resources"]["RestAPI"]["Properties"]["BinaryMediaTypes"]
    assert spelled == {"Fn::If": ["IsEmulator", ["multipart/form-data"], ["multipart~1form-data"]]}


def test_another_api_is_another_deployment(chalice: dict[str, Any]) -> None:
    def deployment() -> str:
        resources = overlay(chalice, CODE, Scale())["Resources"]
        [name] = [name for name, each in resources.items() if each["Type"] == "AWS::ApiGateway::Deployment"]
        return str(name)

    first = deployment()
    assert deployment() == first
    chalice["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]["paths"]["/new"] = {}
    assert deployment() != first


def test_an_unknown_route_is_the_contracts_404(template: dict[str, Any]) -> None:
    properties = template["Resources"]["RestAPIMissingAuthenticationToken"]["Properties"]
    assert properties["StatusCode"] == "404"
    assert properties["ResponseTemplates"]["application/json"] == '{"error": "Not found", "code": "NOT_FOUND"}'


def test_a_function_nobody_gave_rights_is_refused(chalice: dict[str, Any]) -> None:
    chalice["Resources"]["Surprise"] = _function("app.surprise")
    with pytest.raises(TemplateError, match="surprise"):
        overlay(chalice, CODE, Scale())


def test_a_queue_nobody_made_is_refused(chalice: dict[str, Any]) -> None:
    chalice["Resources"]["Rules"] = _function("app.on_events", Source=_listens("attune-elsewhere"))
    with pytest.raises(TemplateError, match="elsewhere"):
        overlay(chalice, CODE, Scale())


def test_functions_and_deployment_see_the_same_environment(template: dict[str, Any]) -> None:
    given = template["Resources"]["Rules"]["Properties"]["Environment"]["Variables"].keys()
    outputs = dict.fromkeys(template["Outputs"], "x")
    assert environment_of(outputs).keys() <= given


def test_tasks_are_there_only_where_their_image_is_named(template: dict[str, Any]) -> None:
    conditional = {name for name, resource in template["Resources"].items() if resource.get("Condition") == "HasTasks"}
    assert {"TaskCluster", "TaskExecutionRole", "TaskStopped", "ExecutorRunsTasks"} <= conditional
    cluster = template["Resources"]["Executor"]["Properties"]["Environment"]["Variables"]["ATTUNE_TASK_CLUSTER"]
    assert cluster == {"Fn::If": ["HasTasks", {"Ref": "TaskCluster"}, {"Ref": "AWS::NoValue"}]}


def test_what_the_conductor_hears_of_a_stopped_task_holds_no_overrides(template: dict[str, Any]) -> None:
    (target,) = template["Resources"]["TaskStopped"]["Properties"]["Targets"]
    told = target["InputTransformer"]
    assert told["InputPathsMap"] == {
        "group": "$.detail.group",
        "started_by": "$.detail.startedBy",
        "stop_code": "$.detail.stopCode",
        "reason": "$.detail.stoppedReason",
    }
    body = told["InputTemplate"]
    for name in told["InputPathsMap"]:
        body = body.replace(f"<{name}>", '"1"')
    assert msgspec.json.decode(body, type=TaskStopped) == TaskStopped(
        group="1", started_by="1", stop_code="1", reason="1"
    )
