"""Compares the vectors of `rzen embed` with those of PyTorch and transformers, in the shape of Qwen2-VL-2B.

    pip install torch 'transformers==4.51.3' pillow safetensors
    cargo xtask init --shape qwen2-vl-2b --decoder-layers 2 --vision-blocks 2 --output target/2b-short
    python benches/parity/full_size.py --model target/2b-short

Texts, a picture of 1225 tokens, a clip of 8 frames and 1360 tokens, and an item that mixes words and pictures go through both, all as
one batch of rzen's. transformers takes each by itself, and all as one padded batch. Exits with 1 where f32 vectors are further apart
than 1e-4 in a number, or where the cosine of a bf16 one falls below 0.999, against transformers' bf16 or its f32.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

PACKAGES = "pip install torch 'transformers==4.51.3' pillow safetensors   (newer transformers do too)"
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
LIMITS = {"f32": 1e-4, "bf16": 0.999}
WORDS = "a red star left of two blue circles on a white page , and below them a large heart with a green border".split()

try:
    import numpy as np
    import torch
    import transformers
    from PIL import Image, ImageDraw
    from safetensors.torch import load_file

    from released import Released
except ImportError as missing:
    sys.exit(f"{missing}; install with\n    {PACKAGES}")


def draw(path, width, height, seed):
    """Waves, grain, ellipses and lines."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.005, 0.2) + y * rng.uniform(0.005, 0.2) + rng.uniform(0, 6)) for _ in range(3)]
    pixels = 127.5 + 90 * np.stack(waves, -1) + rng.normal(0, 12, (height, width, 3))
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(6):
        (x0, x1), (y0, y1) = (sorted(int(at) for at in rng.integers(0, side, 2)) for side in (width, height))
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        pen.ellipse([x0, y0, x1, y1], fill=color)
        pen.line([x0, y1, x1, y0], fill=color[::-1], width=3)
    picture.save(path)
    return path.name


def make_rows(place):
    """Items as `rzen embed` takes them."""
    picture = draw(place / "picture.png", 980, 980, 0)
    photo = draw(place / "photo.png", 1611, 893, 1)
    frames = [draw(place / f"frame_{i}.png", 1190, 700, 10 + i) for i in range(8)]
    two = [draw(place / "one.png", 420, 300, 2), draw(place / "two.png", 317, 523, 3)]
    return [
        {"id": "one letter", "content": [{"text": "x"}]},
        {"id": "sentence", "content": [{"text": " ".join(WORDS)}]},
        {"id": "scripts", "content": [{"text": "Ünïcödé, 日本語 и русский 12345 🙂"}], "instruction": "Find the caption: "},
        {"id": "long text", "content": [{"text": " ".join(WORDS * 10)}]},
        {"id": "picture", "content": [{"image": picture}]},
        {"id": "photo and words", "content": [{"image": photo}, {"text": "what is on it?"}], "instruction": "Answer: "},
        {"id": "clip", "content": [{"video": frames}]},
        {
            "id": "words between pictures",
            "content": [{"text": "first "}, {"image": two[0]}, {"text": "then "}, {"image": two[1]}, {"text": "and no more"}],
        },
    ]


def has_pictures(row):
    return any("text" not in part for part in row["content"])


def prepare(released, row, place):
    text = row.get("instruction", "") + "".join(part.get("text", "") for part in row["content"])
    files = [str(place / part["image"]) for part in row["content"] if "image" in part]
    frames = [str(place / frame) for part in row["content"] for frame in part.get("video", [])]
    pictures = frames or (files if len(files) > 1 else files[0] if files else None)
    return released.prepare(text, pictures)


def theirs(args, rows, place, dtype, modes):
    """Of each position mode: vectors of items alone, and in one batch. Also the tokens of each item."""
    released = Released(args.model, dtype)
    items = [prepare(released, row, place) for row in rows]
    for item in items:
        if "pixel_values" in item:
            item["picture_states"] = released.picture_states(item)
    tokens = [item["input_ids"].shape[1] for item in items]
    longest = released.settings["max_length"]
    if max(tokens) > longest:
        sys.exit(f"{args.model}: an item has {max(tokens)} tokens, above `max_length` {longest}, where rzen cuts otherwise")
    return {mode: released.embed(items, mode) for mode in modes}, tokens


def ours(args, rows, place, mode):
    (place / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    out = place / f"{mode}.safetensors"
    command = [args.rzen, "embed", "--model", args.model, "--dtype", args.dtype, "--positions", mode]
    command += ["--batch-size", str(len(rows)), "--input", place / "rows.jsonl", "--output", out]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{run.stderr}")
    return load_file(out)["embeddings"]


def differences(dtype, one, other):
    """What is compared for each item, and whether all of it is within the limit."""
    if dtype == "f32":
        found = (one - other).abs().amax(1)
        return [f"{x:.1e}" for x in found.tolist()], bool((found <= LIMITS["f32"]).all())
    found = torch.nn.functional.cosine_similarity(one.double(), other.double())
    return [f"{x:.6f}" for x in found.tolist()], bool((found >= LIMITS["bf16"]).all())


def main(args):
    torch.set_grad_enabled(False)
    torch.set_num_threads(args.threads)
    modes = ["sequential", "mrope"] if args.positions == "both" else [args.positions]
    against = {"f32": ["f32"], "bf16": ["bf16", "f32"]}[args.dtype]
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        rows = make_rows(place)
        vectors = {mode: ours(args, rows, place, mode) for mode in modes}
        references = {}
        for name in against:
            dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[name]
            references[name], tokens = theirs(args, rows, place, dtype, modes)
    columns, fine = [], True
    for mode in modes:
        for name in against:
            for kind, reference in zip(("alone", "batch"), references[name][mode]):
                cells, within = differences(args.dtype, vectors[mode], reference)
                columns.append((f"{mode}, {name} {kind}", cells))
                fine &= within
        if args.dtype == "bf16":
            cells, _ = differences("bf16", *(references[name][mode][0] for name in against))
            columns.append((f"{mode}, theirs to theirs", cells))
    what = {"f32": "largest difference of a number, at most 1e-4", "bf16": "cosine, at least 0.999"}[args.dtype]
    print(f"rzen {args.dtype} against transformers {transformers.__version__}, torch {torch.__version__}: {what}\n")
    print("| item | tokens |" + "".join(f" {head} |" for head, _ in columns))
    print("|---|---|" + "---|" * len(columns))
    for index, row in enumerate(rows):
        print(f"| {row['id']} | {tokens[index]} |" + "".join(f" {cells[index]} |" for _, cells in columns))
    if len(modes) == 2:
        apart = [(vectors["sequential"] - vectors["mrope"]).abs().amax(1)[index] for index, row in enumerate(rows) if has_pictures(row)]
        print(f"\nFor scale: in items with pictures the two position modes are {min(apart):.1e} to {max(apart):.1e} apart.")
    print("\nequal" if fine else "\nNOT equal")
    sys.exit(not fine)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="folder in the Hugging Face layout")
    parser.add_argument("--rzen", default=REPOSITORY / "target/release/rzen", metavar="FILE", help="the program")
    parser.add_argument("--dtype", choices=LIMITS, default="f32")
    parser.add_argument("--positions", choices=["sequential", "mrope", "both"], default="both")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of torch")
    main(parser.parse_args())
