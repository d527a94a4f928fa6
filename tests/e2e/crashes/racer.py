"""One of two racing programs: at each change of GO it moves CHAMPION with the revision that both have seen."""

import sys

import rollforward as rf

GO = "m@go"
CHAMPION = "m@champion"


def race(address: str, name: str, rounds: int) -> None:
    """Run a number of races, and print how each ended for this racer."""
    with rf.connect(address, actor=name), rf.watch(GO) as starts:
        alias = rf.resolve(CHAMPION)
        print("ready", flush=True)
        for number, _ in zip(range(rounds), starts, strict=False):
            try:
                alias = rf.move_alias(CHAMPION, 3 - alias.version, expected_revision=alias.revision, reason=name)
                print(f"race {number}: won {alias.revision} {alias.version}", flush=True)
            except rf.Conflict as conflict:
                alias = conflict.current or rf.v1.Alias()
                print(f"race {number}: {conflict.reason} {alias.revision} {alias.version}", flush=True)


if __name__ == "__main__":
    race(sys.argv[1], sys.argv[2], int(sys.argv[3]))
