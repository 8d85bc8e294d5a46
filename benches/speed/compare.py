"""Times rzen against PyTorch + transformers on the same work and threads, and prints Markdown tables.

    pip install torch torchvision 'transformers==4.51.3' pillow
    pip install --target target/transformers-new transformers      # further versions, each in a folder of its own
    cargo xtask init --shape qwen2-vl-2b --output target/2b
    cargo build --release --workspace --examples
    python benches/speed/compare.py --also target/transformers-new

Forward passes (no `lm_head`, one vector an item) of texts, a picture and a clip, inputs prepared beforehand; and JPEG files of 12
megapixels to patches. Each program runs by itself, warms up once, and takes the median of its runs. Of 4032 x 3024 pixels nothing
changes in the first of the two resizes of the released code, so that it is done with one; of 4000 x 3000 both count.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
WORKS = {
    "text:8x128": "8 texts of 128 tokens",
    "picture:980x980": "a picture of 1225 tokens",
    "frames:8x280x476": "a clip of 8 frames, 1360 tokens",
    "jpeg:3024x4032": "a JPEG of 4032 x 3024 to patches",
    "jpeg:3000x4000": "a JPEG of 4000 x 3000 to patches",
}
SECONDS = 60  # no further run once all took so long


def forward(folder, dtype, work):
    """A forward pass of transformers, and its tokens."""
    import torch
    from released import PICTURE, Released

    released = Released(folder, {"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
    kind, sizes = work.split(":")
    sizes = [int(size) for size in sizes.split("x")]
    if kind == "text":
        inputs = {"input_ids": torch.randint(0, 256, sizes)}
    else:
        count, height, width = sizes if kind == "frames" else [1, *sizes]
        grid = torch.tensor([[1, height // 14, width // 14]] * count)
        prompt = f"<|im_start|>system\n{released.settings['system_prompt']}<|im_end|>\n<|im_start|>user\n"
        prompt += PICTURE.replace("<|image_pad|>", "<|image_pad|>" * int(grid[0].prod() // 4)) * count
        prompt += "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
        inputs = {
            "input_ids": released.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids,
            "image_grid_thw": grid,
            "pixel_values": torch.randn(int(grid.prod(1).sum()), 3 * 2 * 14 * 14),
        }
    positions = torch.arange(inputs["input_ids"].shape[1]).expand(3, *inputs["input_ids"].shape)

    def run():
        pictures = None if kind == "text" else released.picture_states(inputs)
        released.decode(released.token_states(inputs, pictures), positions)
        return inputs["input_ids"].numel()

    return run


def patches(file, processor):
    """A file to patches by the image processor on Pillow or the one on torchvision."""
    from released import image_processor, read_picture

    process = image_processor([256, 1280], fast=processor == "torchvision")
    return lambda: int(process([read_picture(file)], return_tensors="pt")["image_grid_thw"].prod() // 4)


def opponent(repeat, what, *args):
    """In a process of its own; prints what `benches/examples/speed.rs` does, and the version."""
    import torch
    import transformers

    sys.path.insert(0, str(REPOSITORY / "benches/parity"))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    wall, cpu = [], []
    with torch.inference_mode():
        run = {"forward": forward, "patches": patches}[what](*args)
        tokens = run()
        while len(wall) < int(repeat) and sum(wall) < SECONDS:
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            cpu.append(time.process_time() - start_cpu)
            wall.append(time.perf_counter() - start)
    name = f"transformers {transformers.__version__}" + (f", {args[-1]}" if what == "patches" else "")
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "tokens": tokens, "name": name}))


def measure(args, command, packages=None):
    """What a program printed, with medians; None where it failed."""
    env = os.environ | {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    if packages:
        env["PYTHONPATH"] = os.pathsep.join([packages] + list(filter(None, [env.get("PYTHONPATH")])))
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env)
    if run.returncode:
        print(f"failed: {' '.join(map(str, command))}\n{run.stderr[-600:]}", file=sys.stderr)
        return None
    found = {"name": "rzen"} | json.loads(run.stdout.strip().splitlines()[-1])
    found |= {kind: statistics.median(found[kind]) for kind in ("wall_s", "cpu_s")}
    print(f"{' '.join(map(str, command[2:]))}: {found}", file=sys.stderr)
    return found


def measure_all(args, work, dtype, place):
    """rzen's figures (None where it was left out) and those of each opponent."""
    ours, theirs = [args.speed, args.repeat], [sys.executable, __file__, "opponent", args.repeat]
    if dtype == "u8":
        file = place / f"{work.split(':')[1]}.jpg"
        draw_photo(file, *(int(side) for side in work.split(":")[1].split("x")))
        commands = [["patches", file, processor] for processor in ("pillow", "torchvision")]
        ours += ["patches", file]
    else:
        commands = [["forward", args.model, dtype, work]]
        ours += commands[0]
    rzen = None if args.opponents_only else measure(args, ours)
    found = [measure(args, theirs + command, packages) for packages in [None, *args.also] for command in commands]
    return rzen, [one for one in found if one]


def draw_photo(path, height, width):
    """Soft shapes of several sizes under a little grain."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = rng.normal(0, 4, (height, width, 3)).astype(np.float32)
    for cells, strength in ((4, 60), (32, 30), (256, 15)):
        coarse = Image.fromarray(rng.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8))
        pixels += (np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128) * (strength / 64)
    Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def cpu_name():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    flags = next(line for line in lines if line.startswith("flags")).split()
    return ", ".join([name] + [what for flag, what in (("avx512f", "AVX-512"), ("amx_bf16", "AMX")) if flag in flags])


def cell(found):
    wall, cpu = (f"{x * 1000:.0f} ms" if x < 1 else f"{x:.2f} s" if x < 10 else f"{x:.1f} s" for x in (found["wall_s"], found["cpu_s"]))
    return f"{wall} / {cpu}"


def compare(args):
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "torchvision", "pillow"))
    print(f"{datetime.date.today()}, {cpu_name()}, {args.threads} threads, {versions}. Wall / CPU time.\n")
    ratios, every = [], []
    with tempfile.TemporaryDirectory() as place:
        for work in args.works:
            for dtype in ["u8"] if work.startswith("jpeg") else args.dtypes:
                rzen, others = measure_all(args, work, dtype, pathlib.Path(place))
                every += [f"| {WORKS[work]} | {dtype} | {one['name']} | {cell(one)} |" for one in [rzen, *others] if one]
                if not (rzen and others):
                    continue
                if any(abs(one["tokens"] / rzen["tokens"] - 1) > 0.01 for one in others):
                    sys.exit(f"{work}: not the same tokens: {rzen}, {others}")
                best = min(others, key=lambda one: one["wall_s"])
                wall, cpu = (best[kind] / rzen[kind] for kind in ("wall_s", "cpu_s"))
                ratios.append(f"| {WORKS[work]} | {dtype} | {cell(rzen)} | {cell(best)} | {wall:.2f} | {cpu:.2f} | {best['name']} |")
    print("| work | type | rzen | fastest opponent | ratio, wall | ratio, CPU | which |\n|---|---|---|---|---|---|---|")
    print("\n".join(ratios))
    print("\n| work | type | program | wall / CPU |\n|---|---|---|---|")
    print("\n".join(every))


if __name__ == "__main__":
    if sys.argv[1:2] == ["opponent"]:
        opponent(*sys.argv[2:])
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--model", type=pathlib.Path, default=REPOSITORY / "target/2b", metavar="DIR")
        parser.add_argument("--also", action="append", default=[], metavar="DIR", help="packages of another transformers version")
        parser.add_argument("--threads", type=int, default=2, metavar="N", help="of every program")
        parser.add_argument("--repeat", type=int, default=5, metavar="N", help=f"runs; none begins once all took {SECONDS} s")
        parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK", help=", ".join(WORKS))
        parser.add_argument("--dtypes", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"], metavar="TYPE")
        parser.add_argument("--speed", default=REPOSITORY / "target/release/examples/speed", metavar="FILE", help="rzen's side")
        parser.add_argument("--opponents-only", action="store_true", help="leave rzen out")
        compare(parser.parse_args())
