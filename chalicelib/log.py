"""The logger: one JSON line an entry, on stdout, as CloudWatch Logs Insights reads it."""

from aws_lambda_powertools import Logger

logger = Logger(service="attune", use_rfc3339=True)
