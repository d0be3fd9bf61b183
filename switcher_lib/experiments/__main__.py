"""``python -m switcher_lib.experiments list | run NAME | table NAME | latency NAME``; NAME may be a JSON file of one's own."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from switcher_lib.errors import DataError, TrainingStopped
from switcher_lib.experiments.catalogue import EXPERIMENTS
from switcher_lib.experiments.latency import measure
from switcher_lib.experiments.results import Results
from switcher_lib.experiments.runner import get, run
from switcher_lib.experiments.specs import Experiment, check_methods, check_seeds, read_experiment
from switcher_lib.experiments.tables import table, text


def seeds_of(text: str) -> list[int]:
    """Parse the ``text`` 0-4 or 0,2,5."""
    first, dash, last = text.partition("-")
    try:
        seeds = list(range(int(first), int(last) + 1)) if dash else [int(s) for s in text.split(",")]
        check_seeds(seeds)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither like 0-4 nor like 0,2,5") from None
    return seeds


def named(text: str) -> tuple[str, Experiment]:
    """Return (name of the result file, experiment): from the catalogue, or from a file that ends in .json."""
    if text.endswith(".json"):
        return Path(text).stem, read_experiment(text)
    return text, get(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m switcher_lib.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what experiments there are")
    for command, what in (("run", "run what is missing"), ("table", "print the table of what is finished"),
                          ("latency", "time the shapes that were found, and write NAME-latency.json")):
        sub = commands.add_parser(command, help=what)
        sub.add_argument("name", help="an experiment that list tells, or a JSON file that ends in .json")
        sub.add_argument("--folder", default="results", help="where the result files are (default: results)")
        if command != "latency":
            sub.add_argument("--methods", nargs="+", help="some of the methods (default: all)")
        if command == "run":
            sub.add_argument("--seeds", type=seeds_of, help="such as 0-4 or 0,2 (default: the experiment's)")
            sub.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
            sub.add_argument("--threads", type=int, help="CPU threads for each run (default: the cores, shared)")
            sub.add_argument("--dask", metavar="ADDRESS", help="scheduler of a dask cluster that does the runs, or 'local'")
            sub.add_argument("--device", default="cpu", help="where runs train, such as cuda (default: cpu)")
            sub.add_argument("--redo", action="store_true", help="replace results of another specification")
        elif command == "table":
            sub.add_argument("--draft", action="store_true", help="print what there is, even against the rules of comparison")
    options = parser.parse_args(arguments)
    if options.command == "list":
        for name, experiment in sorted(EXPERIMENTS.items()):
            print(f"{name}: {experiment.question} Methods: {', '.join(experiment.methods)}.")
        return
    try:
        name, experiment = named(options.name)
        if options.command == "run":
            results = run(name, options.seeds, options.methods, options.jobs, options.folder, options.threads,
                          experiment=experiment, dask=options.dask, device=options.device, redo=options.redo)
            print(text(table(results, options.methods)))
            return
        if options.command == "latency":
            for line in measure(name, experiment, options.folder):
                print(f"{line['median']:9.4f} ms at batch {line['batch']:3}  {line['method']}"
                      f"{'' if line['point'] is None else ' at ' + format(line['point'], ',')}")
            return
        check_methods(options.methods, experiment)
        results = Results(Path(options.folder) / f"{name}.json")
        if options.draft:
            print("DRAFT: these results need not keep the rules of comparison.")
        print(text(table(results, options.methods, None if options.draft else experiment)))
    except (ValueError, OSError, DataError, TrainingStopped) as error:
        parser.exit(2, "\n".join([f"{parser.prog}: {error}", *getattr(error, "__notes__", ()), ""]))


if __name__ == "__main__":
    main()
