"""The steps of a scenario, told as the Tier 3 guide tells them (``pytest -s`` shows them)."""

RULE = "=" * 80


def title(text: str) -> None:
    print(f"\n{RULE}\nTEST: {text}\n{RULE}")


def step(number: int, text: str) -> None:
    print(f"\n[STEP {number}] {text}...")


def summary(*lines: str) -> None:
    print(f"\n{RULE}\nSUMMARY\n{RULE}")
    for line in lines:
        print(f"  {line}")
