"""What every test of the house shares: the markers of the Tier 3 guide, so that ``-m validation`` and friends work."""

import pytest

MARKERS = {
    "tier1": "core flows that everything else stands on",
    "tier2": "orchestration and data flow",
    "tier3": "advanced features, edge cases, security (the Tier 3 guide)",
    "security": "security and RBAC tests",
    "secrets": "secret management tests",
    "rbac": "role-based access control",
    "http": "HTTP runner tests",
    "runner": "action runner tests",
    "validation": "parameter validation",
    "parameters": "parameter handling",
    "edge_case": "edge cases",
    "webhook": "webhook tests",
    "rules": "rule evaluation tests",
    "timer": "timer tests",
    "sensors": "sensors and the events they report",
    "criteria": "rule criteria tests",
    "multi_tenant": "multi-tenancy tests",
    "dependencies": "libraries of packs, installed and kept apart",
    "packs": "pack management tests",
    "notifications": "notification system tests",
    "websocket": "WebSocket tests",
    "container": "container runner tests",
    "logs": "log capture and size tests",
    "limits": "resource and size limit tests",
    "orchestration": "advanced workflow orchestration tests",
    "workflow": "workflow tests",
    "inquiry": "human-in-the-loop tests",
    "aws": "unit tests on moto, whose calls are slow: `make check` leaves them to `make test`",
    "slow": "seconds a test: `make check` leaves it to `make test`",
    "performance": "many things at once, counted",
}


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
