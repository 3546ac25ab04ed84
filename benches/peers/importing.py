"""How fast `moue import ferplus` reads the 28,000 faces of a FERPlus zip, beside the loop that one writes with PIL.

    python3 benches/peers/importing.py [--moue target/release/moue] [--rounds 5] ferplus.zip

Both read the zip, decode every picture, apply FERPlus's rule to the votes (single votes dropped, majority of more than half taken, faces without one left out),
hash the pixels to find copies between the splits, and write pixels and table into one file each. In turns; the loop runs in this process,
so Python's start does not count, while moue's does.
"""

import argparse
import csv
import hashlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from timing import package

CLASSES = 8


def loop(source: Path, out: Path, image) -> int:
    seen: dict[str, str] = {}
    table, copies = [], 0
    with zipfile.ZipFile(source) as archive, out.open("wb") as pack:
        present = set(archive.namelist())
        for split in ("Train", "Valid", "Test"):
            folder = f"FER2013{split}"
            if f"{folder}/label.csv" not in present:
                continue
            for name, _box, *votes in csv.reader(io.StringIO(archive.read(f"{folder}/label.csv").decode())):
                votes = [v if v > 1 else 0 for v in map(int, votes)]
                best = max(votes)
                if 2 * best <= sum(votes) or votes.index(best) >= CLASSES:
                    continue
                label = votes.index(best)
                with image.open(io.BytesIO(archive.read(f"{folder}/{name}"))) as picture:
                    pixels = picture.convert("L").tobytes()
                digest = hashlib.sha256(pixels).hexdigest()
                copies += seen.setdefault(digest, split) != split
                table.append({"id": name, "split": split, "label": label, "votes": votes, "hash": digest})
                pack.write(pixels)
        pack.write(json.dumps({"faces": table, "copies": copies}).encode())
    return len(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--moue", default="target/release/moue")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    image, missing = package("PIL.Image")
    if image is None:
        sys.exit(f"the loop needs PIL: {missing}")
    ours, theirs, faces = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds + 1):
            start = time.perf_counter()
            command = [arguments.moue, "import", "ferplus", arguments.source, "--out", Path(folder) / f"{number}.moue"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            middle = time.perf_counter()
            faces = loop(arguments.source, Path(folder) / "loop.bin", image)
            end = time.perf_counter()
            # The first round warms the disk's cache.
            if number > 0:
                ours.append(middle - start)
                theirs.append(end - middle)
    ratios = [b / a for a, b in zip(ours, theirs)]
    print(f"{faces} faces in the loop, {arguments.rounds} rounds")
    print(f"moue import   {statistics.median(ours):.2f} s ({min(ours):.2f} to {max(ours):.2f})")
    print(f"PIL loop      {statistics.median(theirs):.2f} s ({min(theirs):.2f} to {max(theirs):.2f})")
    print(f"ratio         {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
