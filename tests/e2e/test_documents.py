"""What the documents tell readers to type works as it is written.

The blocks marked ```` ```sh runnable ```` of each document are typed one after
the other into one bash, against real processes on free ports.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer
from tests.support.programs import ROOT
from tests.support.shell_blocks import RunnableBlock, play, runnable_blocks

DOCUMENTS = {
    "README.md": 8,
    "docs/architecture/operations/migration-guide.md": 2,
    "docs/architecture/operations/production.md": 6,
    "docs/architecture/operations/runbook.md": 8,
    "docs/architecture/operations/standard-clients.md": 3,
    "docs/market-data.md": 2,
    "docs/testing/e2e-data-loading-pull.md": 20,
    "docs/testing/e2e-host-training-pull.md": 12,
    "docs/testing/e2e-local-training-pull.md": 10,
}
"""Every document with runnable blocks, and how many it has at least."""
WITHIN = 400.0

MARKED = """# A document

```sh
make setup
```

```sh runnable serving
python -m backend    # listens
```

```sh runnable nonzero
ktrdr health
```

```python runnable
print(1)
```
"""


def test_marked_blocks_are_found_with_their_lines() -> None:
    assert [
        RunnableBlock(7, "python -m backend    # listens\n", "serving"),
        RunnableBlock(11, "ktrdr health\n", "nonzero"),
        RunnableBlock(15, "print(1)\n", "", "python"),
    ] == runnable_blocks(MARKED)


def test_every_document_with_runnable_blocks_is_played() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): len(runnable_blocks(path.read_text("utf-8")))
        for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    }
    assert set(DOCUMENTS) == {name for name, count in found.items() if count}
    assert {} == {name: found[name] for name, least in DOCUMENTS.items() if found[name] < least}


def test_no_mark_is_misspelt() -> None:
    """One that is would keep its block from being run, unnoticed."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = path.read_text("utf-8")
        marked = [line for line in text.splitlines() if re.match(r"`{3,}\w+ +\S", line)]
        assert len(marked) == len(runnable_blocks(text)), marked


def test_a_block_goes_on_where_the_one_before_ended(tmp_path: Path) -> None:
    played = play(
        [
            RunnableBlock(3, "cd strategies\nX=small\n"),
            RunnableBlock(7, "test -e missing\necho $X\n", "nonzero"),
            RunnableBlock(12, "grep -c name: $X.yaml\n"),
        ],
        tmp_path,
        within=30,
    )

    assert played.succeeded, played.output
    assert "small\n=== the block at line 12\n" in played.output


@pytest.mark.parametrize("mode", ["", "nonzero"])
def test_a_block_that_does_not_go_as_marked_ends_the_play_and_is_named(
    mode: str, tmp_path: Path
) -> None:
    commands = "true\n" if mode else "ls small.yml\ntrue\n"
    blocks = [RunnableBlock(9, commands, mode), RunnableBlock(12, "echo unreached\n")]

    played = play(blocks, tmp_path, within=30)

    assert not played.succeeded
    assert "=== the block at line 9" in played.output.splitlines()
    assert "unreached" not in played.output


def test_what_serves_is_stopped_by_who_serves_anew_and_at_the_end(tmp_path: Path) -> None:
    serves = "bash -c 'echo ready; exec sleep 1000'\n"
    blocks = [
        RunnableBlock(3, f"{serves}{serves}", "serving"),
        RunnableBlock(8, "FIRST=$serving\n"),
        RunnableBlock(9, serves, "anew"),
        RunnableBlock(
            12, "kill -0 $serving\nfor one in $FIRST; do if kill -0 $one; then exit 1; fi; done\n"
        ),
    ]

    played = play(blocks, tmp_path, within=30)

    assert played.succeeded, played.output
    assert ["=== the end"] == played.output.splitlines()[-1:]


def test_a_play_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    assert not play([RunnableBlock(1, "sleep 1000\n")], tmp_path, within=0.5).succeeded


@pytest.mark.slow
@pytest.mark.timeout(WITHIN + 60)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_runnable_block_runs(
    document: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = (ROOT / document).read_text("utf-8")
    variables = {}
    if "createdb" in text:
        server: PostgresServer = request.getfixturevalue("postgres")
        variables = server.variables()

    played = play(runnable_blocks(text), tmp_path, within=WITHIN, variables=variables)

    assert played.succeeded, played.output
