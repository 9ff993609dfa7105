"""AWS list prices, us-east-1, on demand, in dollars per million of what is counted (aws.amazon.com, 2026)."""

from bench.function_host import RUNNER
from bench.pipeline import Costs

WRITE_UNITS = 0.625  # DynamoDB, standard table class
READ_UNITS = 0.125
QUEUE_REQUESTS = 0.40  # SQS standard: each send, receive and delete, a batch of up to 64 KB counting as one
INVOCATIONS = 0.20  # Lambda
GIGABYTE_SECONDS = 13.3334  # Lambda on arm64

MEGABYTES = 512  # of every function
RUNNER_SECONDS = 0.128  # what design §9 allows a run
FULL_CPU_MEGABYTES = 1769  # Lambda gives a function of this size one whole processor
CALL_SECONDS = 0.005  # what a call to DynamoDB, SQS or Lambda takes within a region


def per_million(costs: Costs, executions: int) -> float:
    """Dollars for a million executions like the ``executions`` that ``costs`` were recorded for, without API Gateway.

    Time of a function: its CPU time here, stretched to its share of a processor there, and what its calls take.
    """
    functions = [name for name in costs.invocations if name != RUNNER]
    control_seconds = sum(
        costs.cpu_seconds[name] * FULL_CPU_MEGABYTES / MEGABYTES + len(costs.calls[name]) * CALL_SECONDS
        for name in functions
    )
    seconds = control_seconds + costs.invocations.get(RUNNER, 0) * RUNNER_SECONDS
    # Lambda receives each batch with one request and deletes it with another.
    requests = costs.sends + 2 * costs.batches
    total = (
        costs.write_units * WRITE_UNITS
        + costs.read_units * READ_UNITS
        + requests * QUEUE_REQUESTS
        + sum(costs.invocations.values()) * INVOCATIONS
        + seconds * MEGABYTES / 1024 * GIGABYTE_SECONDS
    )
    return total / executions
