"""The `completion` command."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(name="SHELL", help="The shell.")], /) -> None:
    """Print a script that completes commands, options and their values in a shell.

    For the current session only: source <(rollforward completion bash)

    Examples:

        rollforward completion bash > ~/.local/share/bash-completion/completions/rollforward
        rollforward completion zsh > ~/.zfunc/_rollforward
        rollforward completion fish > ~/.config/fish/completions/rollforward.fish
    """
    from rollforward.cli.app import command_line  # noqa: PLC0415 - the tree imports this module

    print(command_line([]).generate_completion(shell=shell), end="")
