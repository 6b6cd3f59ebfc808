"""The command line: which parts, built or only looked for, and the exit status."""

from __future__ import annotations

import argparse

from .catalog import ALL, bring, is_there, locate
from .model import BuildError, UnavailableError
from .steps import say

EXIT_OK, EXIT_FAILED, EXIT_UNAVAILABLE = 0, 1, 3


def main(arguments: list[str] | None = None, description: str | None = None) -> int:
    """Do what the arguments say; returns the exit status."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tools.parts", description=description, formatter_class=layout
    )
    parser.add_argument("part", nargs="?", default="all", choices=[*ALL, "all"])
    parser.add_argument(
        "--where", action="store_true", help="build nothing; print `program<TAB>path` per program"
    )
    options = parser.parse_args(arguments)
    everything = options.part == "all"
    status = EXIT_OK
    for name in ALL if everything else [options.part]:
        required = not (everything and ALL[name].optional)
        found = EXIT_OK if options.where else _try(name, required)
        for program in ALL[name].programs:
            path = locate(program.name)
            print(f"{program.name}\t{path or '-'}")
            if path is None:
                found = found or EXIT_UNAVAILABLE
        if found == EXIT_UNAVAILABLE and everything and ALL[name].may_be_refused:
            continue
        if required:
            status = found if found == EXIT_FAILED else status or found
    return status


def _try(name: str, required: bool) -> int:
    """Bring a part and return the exit status; an optional one may be left out, with the reason in a line."""
    leave_out = None if required else ALL[name].optional
    if leave_out and not is_there(ALL[name]) and (reason := leave_out()):
        say(f"{name}: left out, and its tests are skipped: {reason}")
        return EXIT_UNAVAILABLE
    try:
        bring(name)
    except UnavailableError as unavailable:
        say(f"{name}: not available here. {unavailable}")
        return EXIT_UNAVAILABLE
    except BuildError as error:
        say(str(error))
        return EXIT_FAILED
    return EXIT_OK
