"""Times the Transform stage beside a plain-Python script and gensim's `build_vocab`.

    make benchmark-transform CORPUS='corpus/*.gz' ARGS='--copies 1 2 4'

Ours is the stage of the real command, in a process of its own: importing TensorFlow and Beam,
reading, tokenising, counting, vocabulary, TFRecords and statistics. The script does the same work
in one process, less the statistics, and writes bare integers. gensim reads text that has been
tokenised before, counts it, and writes nothing. Copies differ every thousand lines, so that nothing
is found tokenised.
"""

import argparse
import glob
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from training import alone, write_tokens

from components.artifacts import Examples
from components.example_gen.units import detect

Result = dict[str, Any]

MIN_COUNT = 5


def read_lines(path: str) -> list[bytes]:
    """All lines of a file, compressed or not, without their ends."""
    _, compression = detect(path, "lines")
    with pa.input_stream(path, compression=compression) as source:
        lines: list[bytes] = source.read().splitlines()
    return lines


def unpack(paths: list[str], directory: Path, copy: int) -> list[str]:
    """Plain text, with a line of its own before every thousand lines."""
    directory.mkdir(parents=True)
    plain = []
    for number, path in enumerate(paths):
        target = directory / f"{number:04}.txt"
        lines = read_lines(path)
        with target.open("wb") as file:
            for start in range(0, len(lines), 1000):
                file.write(b"copy %d of this file\n" % copy)
                file.writelines(line + b"\n" for line in lines[start : start + 1000])
        plain.append(str(target))
    return plain


def skipstream(paths: list[str], output: Path, *flags: str) -> Result:
    """The Transform stage of the real command."""
    command = [sys.executable, "-m", "pipeline", "transform", "--output", str(output)]
    # No shell, no pattern: brackets in names would be one.
    command += ["--input", *map(glob.escape, paths), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} failed")
    stage = json.loads((output / "run.json").read_text())["stages"]["transform"]
    return {
        "seconds": stage["seconds"],
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": usage.ru_maxrss // 1024,
        "tokens": stage["tokens"],
        "artifact": stage["artifact"],
    }


def plain_python(paths: list[str], output: Path) -> Result:
    """What one would write by hand, with the standard library."""
    find = re.compile(r"[^\W_]+(?:'[^\W_]+)*").findall

    def documents() -> Iterator[list[str]]:
        for path in paths:
            with open(path, encoding="utf-8") as file:
                yield from (find(line.lower()) for line in file)

    start = time.monotonic()
    tokenised = list(documents())
    counts = Counter(itertools.chain.from_iterable(tokenised))
    kept = [item for item in counts.items() if item[1] >= MIN_COUNT]
    kept.sort(key=lambda item: (-item[1], item[0]))
    ids = {token: number for number, (token, _) in enumerate(kept)}
    output.mkdir()
    with (output / "vocabulary.tsv").open("w", encoding="utf-8") as file:
        file.writelines(f"{token}\t{count}\n" for token, count in kept)
    with (output / "ids.bin").open("wb") as binary:
        for document in tokenised:
            array("i", [ids[token] for token in document if token in ids]).tofile(binary)
    return {"seconds": round(time.monotonic() - start, 1), "tokens": counts.total()}


def gensim_vocabulary(examples: Examples, output: Path) -> Result:
    """gensim's `build_vocab(corpus_file)`, of text that has been tokenised."""
    from gensim.models import Word2Vec

    output.mkdir()
    write_tokens(examples, output / "tokens.txt")
    model = Word2Vec(min_count=MIN_COUNT)
    start = time.monotonic()
    model.build_vocab(corpus_file=str(output / "tokens.txt"))
    return {"seconds": round(time.monotonic() - start, 1), "tokens": model.corpus_total_words}


def main() -> None:
    """Parse, run, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", nargs="+", required=True, help="the corpus: lines of text")
    parser.add_argument("--output", type=Path, default=Path("build/benchmark-transform"))
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2, 4])
    flags = parser.parse_args()

    paths = sorted(path for pattern in flags.input for path in glob.glob(pattern))
    work = flags.output / f"{time.time_ns()}"
    work.mkdir(parents=True)
    copies = [unpack(paths, work / f"text-{n}", n) for n in range(1, max(flags.copies) + 1)]
    one = sum(os.path.getsize(path) for path in copies[0]) / 1e6

    rows: list[Result] = []

    def add(name: str, megabytes: float, result: Result) -> Result:
        row = {"system": name, "megabytes": round(megabytes, 1)} | result
        row["megabytes_per_second"] = round(megabytes / row["seconds"], 2)
        rows.append(row)
        print(json.dumps(row), flush=True)
        return row

    if any(detect(path, "lines")[1] for path in paths):
        add("skipstream, as stored", one, skipstream(paths, work / "stored"))
    for number in flags.copies:
        text = [path for copy in copies[:number] for path in copy]
        name = f"skipstream, plain text x {number}"
        last = add(name, one * number, skipstream(text, work / f"plain-{number}"))
        if number == flags.copies[0]:
            again = skipstream(text, work / f"plain-{number}", "--set", "transform.min_count=6")
            add("the same, tokenised before", one * number, again)
            examples = Examples(Path(last["artifact"]), "benchmark")
    script = alone(plain_python, copies[0], work / "script")
    add("plain Python", one, script)
    add("gensim build_vocab, of tokens", one, alone(gensim_vocabulary, examples, work / "gensim"))

    columns = ["megabytes", "seconds", "megabytes_per_second", "cpu_seconds", "peak_mb", "tokens"]
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for row in rows:
        cells = [f"{row[column]:,}" if column in row else "" for column in columns]
        print(f"| {row['system']} | " + " | ".join(cells) + " |")
    (flags.output / "benchmark.json").write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
