"""Completion for shells, made from the parser, so that it knows every command and option."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

_BASH = """\
# headstart: commands, their options, and files. For this shell: source <(headstart completion bash)
_headstart() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
        case "${{COMP_WORDS[1]}} $word" in
            *\\ -*) ;;
            {with_files}) words="$words $(compgen -f -- "$word")" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o filenames -F _headstart headstart
"""
_WITHOUT_FILES = ("accept", "cache", "completion", "flow", "report", "schedule", "set", "stage", "status")
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def _bash(options: dict[str, list[str]]) -> str:
    cases = "\n".join(f'            {name}) words="{" ".join(words)}" ;;' for name, words in options.items())
    with_files = "|".join(f"{name}\\ *" for name in options if name not in _WITHOUT_FILES)
    return _BASH.format(commands=" ".join(options), cases=cases, with_files=with_files)


def _zsh(options: dict[str, list[str]]) -> str:
    return _ZSH + _bash(options).replace("completion bash", "completion zsh")


def _fish(options: dict[str, list[str]]) -> str:
    lines = ["# headstart: commands and their options. For this shell: headstart completion fish | source"]
    lines.append(f"complete -c headstart -n __fish_use_subcommand -f -a '{' '.join(options)}'")
    for name, words in options.items():
        for word in words:
            kind = f"-l {word[2:]}" if word.startswith("--") else f"-f -a {word}"
            lines.append(f"complete -c headstart -n '__fish_seen_subcommand_from {name}' {kind}")
    return "\n".join(lines) + "\n"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def show(shell: str, parser: argparse.ArgumentParser, others: Mapping[str, list[str]]) -> int:
    """Print the completion script; `others` has the words of commands that parse their own arguments."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    options = {name: _words(command) for name, command in commands.choices.items()}
    options |= others
    print(SHELLS[shell](options), end="")
    return 0


def _words(command: argparse.ArgumentParser) -> list[str]:
    """Return the long options of a command, and the choices of its positional arguments."""
    words = []
    for action in command._actions:
        words += [option for option in action.option_strings if option.startswith("--")]
        if not action.option_strings and action.choices:
            words += [str(choice) for choice in action.choices]
    return words
