from chalicelib.domain.caching import FEW, MANY, SMALL, compiled_once


def test_small_sources_are_remembered_in_number_and_large_ones_sparingly() -> None:
    compiled: list[str] = []

    @compiled_once
    def compile_(source: str) -> int:
        compiled.append(source)
        return len(compiled)

    small = [str(number) for number in range(MANY)]
    large = [str(number) + "x" * SMALL for number in range(FEW + 1)]
    first = [compile_(source) for source in small]
    for source in large:
        compile_(source)
    assert [compile_(source) for source in small] == first
    assert len(compiled) == len(small) + len(large)
    compile_(large[0])
    assert len(compiled) == len(small) + len(large) + 1
