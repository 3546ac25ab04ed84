"""How well wrong labels are found: `moue audit` and cleanlab's rankings of the same predictions, held against the truth.

    python3 benches/peers/label_quality.py [--moue target/release/moue] RUN...

Each RUN is a run folder on generated faces, whose true classes are known (`moue demo --seed N --out RUN`). cleanlab ranks the training faces by
its label quality scores on what each finished model says about them (`predictions/<objective>.csv`); `moue audit` ranks them from the same
files and from what else the run recorded. Prints average precision, and the share of wrong labels in the first 5 % over that among all, for each
run and in the mean.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from timing import package

METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def predictions(path: Path) -> tuple[list[str], list[int], list[int], list[list[float]]]:
    """Ids, given and true classes, and probabilities of the training faces that have both."""
    ids, given, truth, rows = [], [], [], []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        classes = [name.removeprefix("p_") for name in reader.fieldnames or [] if name.startswith("p_")]
        for row in reader:
            if row["split"] == "train" and row["label"] and row["truth"]:
                ids.append(row["id"])
                given.append(classes.index(row["label"]))
                truth.append(classes.index(row["truth"]))
                rows.append([float(row["p_" + name]) for name in classes])
    return ids, given, truth, rows


def audited(moue: str, run: Path) -> dict[str, int]:
    """The rank of each face in `moue audit`, from 1."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.csv"
        subprocess.run([moue, "audit", run, "--csv", path, "--no-duplicates"], check=True, stdout=subprocess.DEVNULL)
        with path.open(newline="") as file:
            return {row["id"]: int(row["rank"]) for row in csv.DictReader(file)}


def score(order: list[int], wrong: list[bool]) -> tuple[float, float]:
    """Average precision of an order (most suspicious first), and the lift of its first 5 %."""
    found, total = 0, 0.0
    for rank, index in enumerate(order, 1):
        if wrong[index]:
            found += 1
            total += found / rank
    top = order[: -(-len(order) * 5 // 100)]
    lift = sum(wrong[i] for i in top) / len(top) / (sum(wrong) / len(wrong))
    return total / sum(wrong), lift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--moue", default="target/release/moue")
    arguments = parser.parse_args()
    rank, missing = package("cleanlab.rank")
    numpy, no_numpy = package("numpy")
    if rank is None or numpy is None:
        print(f"cleanlab is left out: {missing or no_numpy}", file=sys.stderr)
    results: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in arguments.runs:
        ranks = audited(arguments.moue, run)
        for number, path in enumerate(sorted((run / "predictions").glob("*.csv"), key=lambda p: p.stem == "ce")):
            ids, given, truth, rows = predictions(path)
            wrong = [g != t for g, t in zip(given, truth)]
            if number == 0:
                order = sorted(range(len(ids)), key=lambda i: ranks[ids[i]])
                results["moue audit"].append(score(order, wrong))
            if rank is not None and numpy is not None:
                for method in METHODS:
                    quality = rank.get_label_quality_scores(numpy.array(given), numpy.array(rows), method=method)
                    order = [int(i) for i in numpy.argsort(quality, kind="stable")]
                    results[f"cleanlab {method}, {path.stem}"].append(score(order, wrong))
    runs = [run.name for run in arguments.runs]
    print(f"{'average precision (lift of the first 5 %)':<48}" + "".join(f"{name:>18.17}" for name in [*runs, "mean"]))
    for name, scores in results.items():
        mean = tuple(sum(values) / len(values) for values in zip(*scores))
        print(f"{name:<48}" + "".join(f"{f'{ap:.3f} ({lift:.1f})':>18}" for ap, lift in [*scores, mean]))


if __name__ == "__main__":
    main()
