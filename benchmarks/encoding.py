"""Packing a corpus, side by side with `tokenizers` encoding the same documents as one batch.

    python -m benchmarks.encoding [--tales 8000] [--repeats 5] [--threads 2] [--json]

Ours is all of `data.tokens.pack`: Parquet read, texts hashed, encoded, joined, written and flushed to disk. The peer is
`Tokenizer.encode_batch` on a list in memory, its ids never taken out. Both sides in one process, interleaved, medians.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from data.console import Parser, cli
from data.corpora import add_corpus
from data.snapshots import Corpus
from data.tales import tales
from data.tokenizer import Tokenizer, open_tokenizer
from data.tokens import pack
from data.workspace import Workspace

KINDS = {"bpe": 1024, "char": 0, "unigram": 1024}
TARGET = 0.8


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(corpus: Corpus, tokenizer: Tokenizer, workspace: Workspace, repeats: int) -> dict:
    """Median rates of both, in MB of text a second."""
    documents = [text for split in ("train", "validation") for text in corpus.texts(split)]
    size = sum(len(text.encode()) for text in documents) / 1e6
    backend = tokenizer.tokenizer.backend_tokenizer
    ours, peer = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=workspace.root) as folder:
            ours.append(seconds(lambda folder=folder: pack(corpus, tokenizer, Workspace(folder))))
        peer.append(seconds(lambda: backend.encode_batch(documents, add_special_tokens=False)))
    ours, peer = statistics.median(ours), statistics.median(peer)
    return {
        "corpus": corpus.name,
        "tokenizer": tokenizer.name,
        "megabytes": size,
        "ours_mb_per_s": size / ours,
        "encode_batch_mb_per_s": size / peer,
        "ratio": peer / ours,
    }


def main() -> int:
    parser = Parser(prog="python -m benchmarks.encoding", description=__doc__)
    parser.add_argument("--tales", type=int, default=8_000, help="stories to encode (default: 8,000)")
    parser.add_argument("--repeats", type=int, default=5, help="times each side runs (default: 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="cores of both sides (default: all)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        stories = [tale.text for tale in tales(args.tales, seed=7)]
        files = {"stories": Path(folder) / "stories.jsonl", "one_text": Path(folder) / "one_text.txt"}
        files["stories"].write_text("".join(json.dumps({"text": text}) + "\n" for text in stories), encoding="utf-8")
        files["one_text"].write_text("\n\n".join(stories), encoding="utf-8")
        workspace, rows = Workspace(folder), []
        for name, file in files.items():
            corpus = add_corpus(name, [file], workspace)
            for kind, size in KINDS.items():
                rows.append(compare(corpus, open_tokenizer(kind, corpus, size, workspace), workspace, args.repeats))
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{args.threads} threads, medians of {args.repeats}; at least {TARGET} is wanted\n")
        print(f"{'corpus':<12}{'tokenizer':<26}{'ours MB/s':>10}{'encode_batch MB/s':>19}{'ratio':>8}")
        for row in rows:
            rates = f"{row['ours_mb_per_s']:>10.1f}{row['encode_batch_mb_per_s']:>19.1f}{row['ratio']:>8.2f}"
            print(f"{row['corpus']:<12}{row['tokenizer']:<26}{rates}")
    low = [row for row in rows if row["ratio"] < TARGET]
    for row in low:
        print(f"below {TARGET}: {row['corpus']} {row['tokenizer']}", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    cli(main)
