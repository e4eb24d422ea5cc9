"""The results of the five tasks in the current folder: a table on the terminal, and report.html with all pictures."""

import argparse
import sys
from pathlib import Path

from common.report.page import Results, corpora, read_results, write_page
from common.run.console import UserError, align, printable


def results_table(results: list[Results]) -> str:
    """A row per model; the first row of each task names the task and the seconds that it took."""
    rows = [["task", "model", "test accuracy", "95% interval", "clips", "seconds"]]
    for result in results:
        task, seconds = result.task.directory.split("_")[0], result.seconds
        for model, score in result.summary.items():
            rows.append([printable(cell) for cell in (task, model, *score, seconds)])
            task = seconds = ""
    return "\n".join([f"Measured on {printable(', '.join(corpora(results))) or 'nothing'}", "", *align(rows)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m common.report", description=__doc__)
    parser.add_argument("seconds", nargs="*", metavar="SECONDS", help="how long each task took, in their order")
    results = read_results(Path(), parser.parse_args().seconds)
    try:
        write_page(Path("report.html"), results)
    except UserError as error:
        sys.exit(f"{parser.prog}: error: {error}")
    print(results_table(results), "\nWith all pictures: report.html", sep="\n")
