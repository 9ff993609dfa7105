"""Deploys Attune: package, overlay, CloudFormation, keys, core pack and administrator (design §7).

``python -m infra.deploy`` deploys to whatever ``AWS_ENDPOINT_URL`` names; nothing means AWS, with the credentials and
region of the environment. It may be repeated at any time: what is there already stays, what changed is updated.
Progress goes to stdout; a failure is one sentence on stderr and exit code 1.
"""

import argparse
import base64
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import clients
from chalicelib.security.keyring import NamedKey
from chalicelib.settings import oidc_settings
from infra import package, steps, template

LOCAL_LOGIN: Final = "test@attune.local"
LOCAL_PASSWORD: Final = "TestPass123!"  # noqa: S105 - the well-known local administrator; AWS has no default
_INLINE_TEMPLATE: Final = 51_200  # CloudFormation: bytes of a template given in the request itself
_LONGEST: Final = 1_800  # seconds a deployment may take
_DONE: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE")

Say = Callable[[str], None]


class DeployError(Exception):
    """One sentence for whoever runs the deployment."""


@dataclass(frozen=True)
class Target:
    """What to deploy where."""

    stack: str
    parameters: Mapping[str, str]
    scale: template.Scale
    architecture: str | None  # of the zips; None: slim ones (see infra.package)
    administrator: tuple[str, str] | None


def target_from(environment: Mapping[str, str], *, slim: bool) -> Target:
    """Reads the deployment's settings from the environment (docs/operating.md lists them).

    Raises :class:`DeployError` when a real deployment has no administrator's password.
    """
    emulator = bool(environment.get("AWS_ENDPOINT_URL"))
    parameters = {
        "Emulator": "yes" if emulator else "no",
        "ApiUrl": environment.get("ATTUNE_PUBLIC_URL", ""),
        "SelfRegistration": environment.get("ATTUNE_SELF_REGISTRATION", "off"),
        "TenantIsolation": environment.get("ATTUNE_TENANT_ISOLATION", "off" if emulator else "on"),
        "PacksDir": environment.get("ATTUNE_PACKS_DIR", ""),
        "TaskImage": environment.get("ATTUNE_TASK_IMAGE", ""),
        "TaskSubnets": environment.get("ATTUNE_TASK_SUBNETS", ""),
        "TaskClosedGroups": environment.get("ATTUNE_TASK_CLOSED_GROUPS", ""),
        "TaskOpenGroups": environment.get("ATTUNE_TASK_OPEN_GROUPS", ""),
        "TaskPublicAddress": environment.get("ATTUNE_TASK_PUBLIC_ADDRESS", "off"),
        "CorsOrigins": environment.get("ATTUNE_CORS_ORIGINS", ""),
        "Oidc": _oidc(environment),
        "AuditDays": environment.get("ATTUNE_AUDIT_DAYS", ""),
        "HttpAllowed": environment.get("ATTUNE_HTTP_ALLOWED", ""),
        "AlarmTopic": environment.get("ATTUNE_ALARM_TOPIC", ""),
    }
    runners = _number(environment, "ATTUNE_RUNNERS", template.local_runners() if emulator else 0)
    scale = template.Scale(
        consumers=_number(environment, "ATTUNE_CONSUMERS", 2 if emulator else 50),
        runners=0 if emulator else runners,
        # Where there is a bound on what runs, no tenant fills it alone.
        share=_number(environment, "ATTUNE_TENANT_SHARE", runners // 2),
        requests=_number(environment, "ATTUNE_REQUESTS", 1000),
    )
    login = environment.get("ATTUNE_ADMIN_LOGIN") or LOCAL_LOGIN
    password = environment.get("ATTUNE_ADMIN_PASSWORD") or (LOCAL_PASSWORD if emulator else "")
    architecture = environment.get("ATTUNE_ARCHITECTURE") or (package.host_architecture() if emulator else "arm64")
    return Target(
        stack=environment.get("ATTUNE_STACK", "attune"),
        parameters=parameters,
        scale=scale,
        architecture=None if slim else architecture,
        administrator=(login, password) if password else None,
    )


def _oidc(environment: Mapping[str, str]) -> str:
    given = environment.get("ATTUNE_OIDC", "")
    try:
        oidc_settings(given)
    except ValueError as error:
        raise DeployError(f"ATTUNE_OIDC is not what docs/operating.md says: {error}.") from error
    return given


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    given = environment.get(name) or str(default)
    if not given.isdigit():
        raise DeployError(f"{name} must be a number, not {given!r}.")
    return int(given)


def deploy(target: Target, say: Say) -> dict[str, str]:
    """Brings the stack to the state of the source; returns its outputs. Raises :class:`DeployError`."""
    stack = _describe(target.stack)
    if stack is None and target.administrator is None:
        raise DeployError("A new deployment needs ATTUNE_ADMIN_PASSWORD, the password of its first administrator.")
    mark = package.fingerprint(f"{target.parameters} {target.scale} {target.architecture}")
    outputs = _outputs(stack)
    if stack is None or stack["StackStatus"] not in _DONE or outputs.get("Fingerprint") != mark:
        code, body = _prepare(target, say)
        outputs = _apply(target, stack, body, {**target.parameters, "Fingerprint": mark}, code.bucket, say)
    return outputs


def _prepare(target: Target, say: Say) -> tuple[template.Code, str]:
    say(steps.PACKAGING)
    control = package.control_zip(target.architecture)
    runner = package.runner_zip(target.architecture)
    generated = package.chalice_template()
    bucket = _code_bucket()
    for zipped in (control, runner):
        _upload(bucket, zipped.key, zipped.content)
    architecture = target.architecture or package.host_architecture()
    code = template.Code(bucket, control.key, runner.key, architecture)
    try:
        body = json.dumps(template.overlay(generated, code, target.scale), separators=(",", ":"))
    except template.TemplateError as error:
        raise DeployError(f"The template could not be made: {error}.") from error
    return code, body


def _code_bucket() -> str:
    """The bucket for zips and templates, one per account and region, made when it is missing."""
    s3 = clients.s3()
    account = clients.client("sts").get_caller_identity()["Account"]
    region = s3.meta.region_name
    bucket = f"attune-code-{account}-{region}"
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError:
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, **place)
        s3.put_public_access_block(
            Bucket=bucket,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
    return bucket


def _upload(bucket: str, key: str, content: bytes) -> None:
    try:
        clients.s3().head_object(Bucket=bucket, Key=key)
    except ClientError:
        clients.s3().put_object(Bucket=bucket, Key=key, Body=content)


def _describe(stack: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = clients.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return found


def outputs_of(stack: str) -> dict[str, str] | None:
    """The outputs of a deployed stack; None: there is none of that name."""
    described = _describe(stack)
    return None if described is None else _outputs(described)


def _outputs(stack: Mapping[str, Any] | None) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in (stack or {}).get("Outputs", [])}


def _apply(
    target: Target, stack: dict[str, Any] | None, body: str, parameters: Mapping[str, str], bucket: str, say: Say
) -> dict[str, str]:
    cloudformation = clients.client("cloudformation")
    request: dict[str, Any] = {
        "StackName": target.stack,
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    }
    if len(body) > _INLINE_TEMPLATE:
        key = f"template-{parameters['Fingerprint']}.json"
        clients.s3().put_object(Bucket=bucket, Key=key, Body=body.encode())
        request["TemplateURL"] = f"{_s3_url()}/{bucket}/{key}"
    else:
        request["TemplateBody"] = body
    if stack and stack["StackStatus"] in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"):
        # A stack whose creation failed can only be deleted.
        cloudformation.delete_stack(StackName=target.stack)
        _settle(stack["StackId"])
        stack = None
    say(steps.CREATING if stack is None else steps.UPDATING)
    try:
        if stack is None:
            identifier = cloudformation.create_stack(**request)["StackId"]
        else:
            identifier = cloudformation.update_stack(**request)["StackId"]
    except ClientError as error:
        if "No updates are to be performed" in str(error):
            return _outputs(stack)
        raise
    settled = _settle(identifier)
    if settled is None or settled["StackStatus"] not in _DONE:
        raise DeployError(f"The deployment failed: {_reason(identifier)}")
    return _outputs(settled)


def _s3_url() -> str:
    s3 = clients.s3()
    url: str = s3.meta.endpoint_url
    return url


def _settle(identifier: str) -> dict[str, Any] | None:
    """Waits until nothing is in progress; returns the stack, or None when it is gone."""
    deadline = time.monotonic() + _LONGEST
    pause = 0.1
    while time.monotonic() < deadline:
        stack = _describe(identifier)
        if stack is None or stack["StackStatus"] == "DELETE_COMPLETE":
            return None
        if not stack["StackStatus"].endswith("_IN_PROGRESS"):
            return stack
        time.sleep(pause)
        pause = min(pause * 1.5, 5)
    raise DeployError(f"The deployment still was not done after {_LONGEST // 60} minutes.")


def _reason(identifier: str) -> str:
    """Of a failure, the first resource that failed and why: what follows it are only consequences."""
    events = clients.client("cloudformation").describe_stack_events(StackName=identifier)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED")]
    if not failed:
        return "CloudFormation gives no reason; see the stack's events."
    first = failed[-1]  # newest come first
    return f"{first['LogicalResourceId']}: {first.get('ResourceStatusReason', 'no reason given')}"


def write_keys(secret: str) -> bool:
    """Gives a fresh secret its keys, once; returns whether it did. Rotation adds keys in front (docs/operating.md)."""
    manager = clients.secretsmanager()
    if "jwt" in json.loads(manager.get_secret_value(SecretId=secret)["SecretString"]):
        return False
    keys = {purpose: [new_key()] for purpose in ("jwt", "master")}
    manager.put_secret_value(SecretId=secret, SecretString=msgspec.json.encode(keys).decode())
    return True


def write_client_secret(secret: str, value: str | None) -> bool:
    """Keeps the client secret for the provider of identities beside the keys; returns whether that changed anything.
    None: the one that is there stays."""
    manager = clients.secretsmanager()
    said = json.loads(manager.get_secret_value(SecretId=secret)["SecretString"])
    if value is None or said.get("oidc_client_secret") == value:
        return False
    manager.put_secret_value(SecretId=secret, SecretString=json.dumps({**said, "oidc_client_secret": value or None}))
    return True


def new_key() -> NamedKey:
    """A key that nobody has."""
    return NamedKey(kid=secrets.token_hex(4), key=base64.b64encode(secrets.token_bytes(32)).decode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slim", action="store_true", help="without packages: the emulator's interpreter has them")
    parser.add_argument("--outputs", type=Path, help="write the stack's outputs to this file as JSON")
    return parser


def main() -> int:
    """The command."""
    arguments = _parser().parse_args()
    try:
        if os.environ.get("AWS_ENDPOINT_URL"):
            os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
            os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
            os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        target = target_from(os.environ, slim=arguments.slim)
        outputs = deploy(target, say=lambda step: print(step, flush=True))
        write_keys(outputs["Secret"])
        write_client_secret(outputs["Secret"], os.environ.get("ATTUNE_OIDC_CLIENT_SECRET"))
        _bootstrap(target, outputs)
    except (DeployError, package.PackagingError) as error:
        print(error, file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"The deployment failed: {error}", file=sys.stderr)
        return 1
    if arguments.outputs:
        arguments.outputs.write_text(json.dumps(outputs))
    print(f"deployed: {outputs['ApiUrl']}", flush=True)
    return 0


def _bootstrap(target: Target, outputs: Mapping[str, str]) -> None:
    print(steps.LOADING, flush=True)
    os.environ.update(template.environment_of(outputs))
    from infra import bootstrap

    try:
        bootstrap.prepare(package.ROOT / "packs" / "core", target.administrator)
        print(steps.PROVING, flush=True)
        bootstrap.prove()
    except bootstrap.ProofError as error:
        raise DeployError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
