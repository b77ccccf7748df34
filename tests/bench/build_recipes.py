"""Rebuilds ``python/disagg/data/validation/recipes.tsv.zst`` from a table of what P/D rows of the sample ran.

    python tests/bench/build_recipes.py path/to/inferencex_recipes.csv

The table joins rows of the silicon sample (by ``id``) with the public configuration history of
SemiAnalysisAI/InferenceX (Apache-2.0) on model, precision, system, framework, lengths, concurrency, GPUs and date.
``kind``: ``one`` recipe fits, ``mtp unknown`` (one layout, with or without drafts), ``several``. Half of the rows are
in it. Dropped: the days between which a recipe was seen. Values are copied as text.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

LEFT_OUT = {"measured", "recipe_first_seen", "recipe_last_seen"}
TARGET = Path(__file__).parents[2] / "python/disagg/data/validation/recipes.tsv.zst"


def main(path: str) -> None:
    rows = list(csv.DictReader(Path(path).read_text().splitlines()))
    columns = [c for c in rows[0] if c not in LEFT_OUT]
    text = "\n".join("\t".join(line) for line in [columns, *([r[c] for c in columns] for r in rows)]) + "\n"
    packed = subprocess.run(
        ["zstd", "-19", "-c", "--no-check"], input=text.encode(), capture_output=True, check=True
    ).stdout
    TARGET.write_bytes(packed)
    print(f"{len(rows)} rows, {len(text)} bytes, {len(packed)} packed")


if __name__ == "__main__":
    main(sys.argv[1])
