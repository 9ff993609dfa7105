from dataclasses import replace


class BrokenStore:
    def tenant(self, tenant):
        raise ConnectionError("no route to table")


def test_health_is_public(api):
    nobody = api.anonymous()
    assert nobody.get("/health").json == {"status": "ok"}
    assert (nobody.get("/health/live").status, nobody.get("/health/live").body) == (200, b"")
    assert (nobody.get("/health/ready").status, nobody.get("/health/ready").body) == (200, b"")
    detailed = nobody.get("/health/detailed").json
    assert (detailed["status"], detailed["database"]) == ("ok", "connected")
    assert set(detailed) == {"status", "version", "database"}


def test_without_a_store_it_lives_but_is_not_ready(api):
    api.services = replace(api.services, store=BrokenStore())
    nobody = api.anonymous()
    assert nobody.get("/health").status == 200
    assert nobody.get("/health/live").status == 200
    for path in ("/health/ready", "/health/detailed"):
        answer = nobody.get(path)
        assert answer.status == 503
        assert "no route" not in answer.body.decode()
