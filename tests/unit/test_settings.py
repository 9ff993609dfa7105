"""What a deployment is told through its environment."""

import pytest

from chalicelib.settings import OidcSettings, oidc_settings, settings_from

REQUIRED = [
    "REGISTRY_TABLE",
    "ACTIVITY_TABLE",
    "EVENTS_QUEUE",
    "EXECUTIONS_QUEUE",
    "RESULTS_QUEUE",
    "RUNNER_FUNCTION",
    "BUCKET",
    "SECRET",
    "API_URL",
]
ENVIRONMENT = {f"ATTUNE_{name}": name.lower() for name in REQUIRED}


def test_what_is_not_said_is_off() -> None:
    settings = settings_from(ENVIRONMENT)
    assert settings.self_registration is False
    assert settings.cors_origins == frozenset()
    assert settings.oidc is None


def test_origins_are_listed_by_comma() -> None:
    said = {"ATTUNE_CORS_ORIGINS": " https://a.example.org ,https://b.example.org,"}
    assert settings_from(ENVIRONMENT | said).cors_origins == {"https://a.example.org", "https://b.example.org"}
    assert settings_from(ENVIRONMENT | {"ATTUNE_CORS_ORIGINS": ""}).cors_origins == frozenset()


@pytest.mark.parametrize("missing", ENVIRONMENT)
def test_a_variable_that_is_missing_is_named(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        settings_from({name: value for name, value in ENVIRONMENT.items() if name != missing})


def test_a_provider_of_identities() -> None:
    said = '{"issuer": "https://login.example.org/us", "client_id": "attune", "sign_up": true}'
    expected = OidcSettings(issuer="https://login.example.org/us", client_id="attune", sign_up=True)
    assert settings_from(ENVIRONMENT | {"ATTUNE_OIDC": said}).oidc == expected
    assert oidc_settings("  ") is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("{", "truncated"),
        ("[]", "object"),
        ('{"client_id": "attune"}', "issuer"),
        ('{"issuer": "http://login.example.org", "client_id": "attune"}', "https://"),
        ('{"issuer": "https://", "client_id": "attune"}', "https://"),
        ('{"issuer": "login.example.org", "client_id": "attune"}', "https://"),
        ('{"issuer": "https://login.example.org", "client_id": "attune", "sign_up": "yes"}', "sign_up"),
    ],
)
def test_a_provider_that_cannot_be(said: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        oidc_settings(said)
