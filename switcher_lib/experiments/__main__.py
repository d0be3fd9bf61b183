"""``python -m switcher_lib.experiments list | run NAME | table NAME``."""

import argparse

from switcher_lib.experiments.runner import load, run
from switcher_lib.experiments.specs import EXPERIMENTS
from switcher_lib.experiments.tables import table, text


def seeds_of(text):
    """Parse ``0-4`` or ``0,2,5``."""
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(s) for s in text.split(",")]


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m switcher_lib.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what experiments there are")
    for command, what in (("run", "run what is missing"), ("table", "print the table of what is finished")):
        sub = commands.add_parser(command, help=what)
        sub.add_argument("name", choices=sorted(EXPERIMENTS))
        sub.add_argument("--folder", default="results", help="where the result files are (default: results)")
        if command == "run":
            sub.add_argument("--seeds", type=seeds_of, default=list(range(5)), help="such as 0-4 (default) or 0,2")
            sub.add_argument("--methods", nargs="+", help="some of the methods (default: all)")
            sub.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
            sub.add_argument("--threads", type=int, help="CPU threads for each run (default: the cores, shared)")
    options = parser.parse_args(arguments)
    if options.command == "list":
        for name, experiment in sorted(EXPERIMENTS.items()):
            print(f"{name}: {experiment.question} Methods: {', '.join(experiment.methods)}.")
        return
    if options.command == "run":
        run(options.name, options.seeds, options.methods, options.jobs, options.folder, options.threads)
    print(text(table(load(options.name, options.folder), list(EXPERIMENTS[options.name].methods))))


if __name__ == "__main__":
    main()
