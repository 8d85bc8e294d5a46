"""Compares what `rzen plan` predicts with what `rzen embed` takes, and prints a Markdown table.

    pip install numpy pillow tokenizers
    cargo xtask init --shape qwen2-vl-2b --output target/2b
    cargo build --release --workspace
    python benches/speed/plan.py --model target/2b

Memory is the `Maximum resident set size` of `/usr/bin/time -v` (GNU time), mapped files included. Time is that of a run, less that of a
run with one word, whose files have been read before. `rzen embed` computes once what all items begin with, so that `rzen plan` is not
told of it.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Items of a work: words of a text, or the side of a square picture in pixels.
WORKS = {
    "one word": [("text", 1)],
    "8 texts": [("text", 40)] * 8,
    "64 texts": [("text", 40)] * 64,
    "a picture": [("picture", 980)],
    "4 pictures, 16 texts": [("picture", 980)] * 2 + [("picture", 560)] * 2 + [("text", 40)] * 16,
}
WORDS = "a red star left of two blue circles on a white page , and below them a large heart with a green border".split()


def write(folder, items):
    """Rows of items, none like another, in `folder/rows.jsonl`."""
    rng = np.random.default_rng(len(items))
    rows = []
    for i, (kind, size) in enumerate(items):
        if kind == "text":
            part = {"text": " ".join(rng.permutation((WORDS * (1 + size // len(WORDS)))[:size]))}
        else:
            part = {"image": f"{i}.png"}
            Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / part["image"])
        rows.append({"id": str(i), "content": [part]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def mix(model, items, rows):
    """The items as `rzen plan` takes them, without the beginning that they share; texts count as the longest of them."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    frame = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    settings = model / "processor.json"
    system = json.loads(settings.read_text())["system_prompt"] if settings.exists() else "You are a helpful assistant."
    tokens = lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    shared = tokens(frame.format(system, "{}").split("{}")[0]) if len(rows) > 1 else 0
    count = lambda text: tokens(frame.format(system, text)) - shared
    longest = max((count(row["content"][0]["text"]) for row in rows if "text" in row["content"][0]), default=0)
    kinds = {}
    for kind, size in items:
        name = f"text:{longest}"
        if kind == "picture":
            name = f"picture:{(size // 28) ** 2}+{count('<|vision_start|><|vision_end|>')}"
        kinds[name] = kinds.get(name, 0) + 1
    return ",".join(f"{name}={count}" for name, count in kinds.items())


def embed(rzen, model, dtype, folder):
    """Bytes and seconds of a run."""
    out = folder / "vectors.jsonl"
    command = [rzen, "embed", "--model", model, "--dtype", dtype, "--input", folder / "rows.jsonl", "--output", out]
    run = subprocess.run(["/usr/bin/time", "-v", *map(str, command)], capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    out.unlink()
    memory = int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", run.stderr)[1]) * 1024
    clock = re.search(r"Elapsed \(wall clock\) time .*: ([\d:.]+)", run.stderr)[1].split(":")
    return memory, sum(float(part) * 60**i for i, part in enumerate(reversed(clock)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--rzen", default=str(REPOSITORY / "target/release/rzen"))
    parser.add_argument("--dtypes", default="bf16,f32")
    parser.add_argument("--works", default=",".join(str(i) for i in range(len(WORKS))), help="numbers, from 0")
    args = parser.parse_args()
    weights = sum(path.stat().st_size for path in args.model.glob("*.safetensors"))
    print(f"Weights: {weights / 1e9:.2f} GB. Threads: {os.environ.get('RAYON_NUM_THREADS', os.cpu_count())}.\n")
    print("| work | type | memory, predicted | measured | ratio | of the files | time, predicted | measured | ratio |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for dtype in args.dtypes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            write(pathlib.Path(folder), WORKS["one word"])
            embed(args.rzen, args.model, dtype, pathlib.Path(folder))
            idle = embed(args.rzen, args.model, dtype, pathlib.Path(folder))[1]
        for number in map(int, args.works.split(",")):
            name, items = list(WORKS.items())[number]
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                rows = write(folder, items)
                plan = [args.rzen, "plan", "--json", "--model", args.model, "--dtype", dtype, "--mix", mix(args.model, items, rows)]
                plan = json.loads(subprocess.run(list(map(str, plan)), stdout=subprocess.PIPE, check=True, text=True).stdout)
                memory, seconds = embed(args.rzen, args.model, dtype, folder)
            predicted = plan["memory_bytes"]["total"]
            line = [name, dtype, f"{predicted / 1e9:.2f} GB", f"{memory / 1e9:.2f} GB", f"{memory / predicted:.2f}"]
            line += [f"{memory / weights:.2f} x"]
            if len(items) > 1 or items[0][1] > 1:
                line += [f"{plan['seconds']:.1f} s", f"{seconds - idle:.1f} s", f"{(seconds - idle) / plan['seconds']:.2f}"]
            else:
                line += ["", f"{seconds:.1f} s in all", ""]
            print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
