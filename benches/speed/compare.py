"""Times rzen against PyTorch + transformers on the same work and device, and prints Markdown tables.

    pip install torch torchvision 'transformers==4.51.3' pillow
    pip install --target target/transformers-new transformers      # further versions, each in a folder of its own
    cargo xtask init --shape qwen2-vl-2b --output target/2b
    cargo build --release --workspace --examples
    python benches/speed/compare.py --also target/transformers-new

Forward passes (no `lm_head`, one vector an item) of texts, a picture and a clip, inputs prepared beforehand; and JPEG files of 12
megapixels to patches. Each program runs by itself, warms up, and takes the median of its runs. Of 4032 x 3024 pixels nothing
changes in the first of the two resizes of the released code, so that it is done with one; of 4000 x 3000 both count.

On a GPU (FEATURE is cuda, wgpu, vulkan or metal, and the device's name too; docs/backends.md says what each needs):

    cargo xtask init --shape qwen2-vl-2b --dtype bf16 --output target/2b
    cargo build --release -p benches --examples --features FEATURE
    python benches/speed/compare.py --device FEATURE

runs larger batches, with `flash_attention_2` too where `flash_attn` is installed. Inputs lie on the device, and the time ends when the
vectors have been read back. rzen is measured only where it gives the known vectors of `rzen doctor`.
"""

import argparse
import datetime
import importlib.util
import pathlib
import sys
import tempfile

from side_by_side import (
    KINDS,
    REPOSITORY,
    add_options,
    attentions,
    cpu_name,
    facts_of,
    headline,
    measure,
    memory_cells,
    must_be_there,
    parse,
    rate_cells,
    sizes_of,
    title,
    work,
)

CPU_WORKS = ["text:8x128", "picture:1x980x980", "frames:1x8x280x476", "jpeg:3024x4032", "jpeg:3000x4000"]
GPU_WORKS = ["text:64x128", "picture:16x448x448", "picture:4x896x1120", "frames:4x8x280x476"]
SECONDS = 60  # no further run once all took so long; `speed.rs` has the same


def measure_all(args, work, dtype, place):
    """rzen's figures (None where it was left out) and those of each opponent."""
    ours, theirs = [args.speed, args.repeat], [sys.executable, pathlib.Path(__file__).with_name("opponent.py"), args.repeat]
    if dtype == "u8":
        file = place / f"{work.split(':')[1]}.jpg"
        draw_photo(file, *sizes_of(work)[1])
        variants = ["pillow", "torchvision"]
        commands = [["patches", file, processor] for processor in variants]
        ours += ["patches", file]
    else:
        variants = attentions(args.torch_device, dtype)
        commands = [["forward", args.model, dtype, work, args.torch_device, attention] for attention in variants]
        ours += ["forward", args.model, dtype, work, args.device]
    rzen = None if args.opponents_only else measure(args, ours, "rzen" if args.device == "cpu" else f"rzen, {args.device}")
    others = []
    for packages in [None, *args.also]:
        for variant, command in zip(variants, commands):
            found = measure(args, theirs + command, f"transformers in {packages}" if packages else "transformers", packages)
            # On the CPU attention is always the same.
            others.append(found | ({} if variant == "sdpa" and args.device == "cpu" else {"name": f"{found['name']}, {variant}"}))
    if rzen and "tokens" in rzen and any(abs(one.get("tokens", rzen["tokens"]) / rzen["tokens"] - 1) > 0.01 for one in others):
        sys.exit(f"{work}: not the same tokens: {rzen}, {others}")
    return rzen, others


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


def cell(found):
    wall, cpu = (f"{x * 1000:.0f} ms" if x < 1 else f"{x:.2f} s" if x < 10 else f"{x:.1f} s" for x in (found["wall_s"], found["cpu_s"]))
    return f"{wall} / {cpu}"


def print_cpu(args, facts, measured):
    print(f"{datetime.date.today()}, {cpu_name()}, {args.threads} threads, {facts}. Wall / CPU time.\n")
    print("| work | type | rzen | fastest opponent | ratio, wall | ratio, CPU | which |\n|---|---|---|---|---|---|---|")
    for work, dtype, rzen, others in measured:
        others = [one for one in others if "wall_s" in one]
        if not (rzen and "wall_s" in rzen and others):
            continue
        best = min(others, key=lambda one: one["wall_s"])
        wall, cpu = (best[kind] / rzen[kind] for kind in ("wall_s", "cpu_s"))
        print(f"| {title(work)} | {dtype} | {cell(rzen)} | {cell(best)} | {wall:.2f} | {cpu:.2f} | {best['name']} |")
    print("\n| work | type | program | wall / CPU |\n|---|---|---|---|")
    for work, dtype, rzen, others in measured:
        for one in filter(None, [rzen, *others]):
            print(f"| {title(work)} | {dtype} | {one['name']} | {cell(one) if 'wall_s' in one else 'failed'} |")


def print_gpu(args, facts, measured):
    """Rows of every program, with operations as `rzen plan` counts them, the same for all."""
    every = [one for *_, rzen, others in measured for one in [rzen, *others] if one and "wall_s" in one]
    print(headline(facts, every))
    print("| work | type | program | ms a batch | samples/s | tokens/s | TFLOP/s | utilisation | peak memory | of the card | rzen / it |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    # They don't depend on the type, which rzen's device may lack.
    operations = {work: rzen["operations"] for work, _, rzen, _ in measured if rzen and "wall_s" in rzen}
    for work, dtype, rzen, others in measured:
        for one in filter(None, [rzen, *others]):
            cells = [title(work), dtype, one["name"]]
            cells += rates(args, one, work, dtype, operations.get(work), rzen) if "wall_s" in one else ["failed"] + [""] * 7
            print(f"| {' | '.join(cells)} |")


def rates(args, one, work, dtype, operations, rzen):
    """Cells of a program's row behind its name."""
    seconds = one["wall_s"]
    cells = [f"{seconds * 1000:.1f}", f"{sizes_of(work)[1][0] / seconds:.1f}", f"{one['tokens'] / seconds:.0f}"]
    cells += rate_cells(args, one, operations, dtype)
    return cells + memory_cells(one) + [f"{seconds / rzen['wall_s']:.2f}" if rzen and "wall_s" in rzen and one is not rzen else ""]


def compare(args):
    optional = ["flash_attn"] if importlib.util.find_spec("flash_attn") else []
    packages = ["torch", "torchvision", "pillow"] if args.device == "cpu" else ["torch", *optional]
    facts, measured = facts_of(args, packages), []  # Known before hours are spent.
    with tempfile.TemporaryDirectory() as place:
        for work in args.works:
            for dtype in ["u8"] if work.startswith("jpeg") else args.dtypes:
                measured.append((work, dtype, *measure_all(args, work, dtype, pathlib.Path(place))))
    (print_cpu if args.device == "cpu" else print_gpu)(args, facts, measured)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--model", type=pathlib.Path, default=REPOSITORY / "target/2b", metavar="DIR")
    parser.add_argument("--repeat", type=int, metavar="N", help=f"runs: 5, on a GPU 20; none begins once all took {SECONDS} s")
    kinds = ", ".join(f"{kind}:{'x'.join(sizes)}" for kind, sizes in KINDS.items())
    parser.add_argument(
        "--works",
        nargs="+",
        type=work,
        metavar="WORK",
        help=f"{kinds}; pictures of 256 to 1280 tokens of 28 x 28 pixels, frames of 160 to 180. "
        f"By default {', '.join(CPU_WORKS)}; on a GPU {', '.join(GPU_WORKS)}",
    )
    parser.add_argument("--dtypes", nargs="+", choices=["f32", "bf16"], metavar="TYPE", help="f32, bf16; by default both")
    parser.add_argument("--speed", default=REPOSITORY / "target/release/examples/speed", metavar="FILE", help="rzen's side")
    parser.add_argument("--opponents-only", action="store_true", help="leave rzen out")
    args = parse(parser)
    is_cpu = args.device == "cpu"
    args.repeat = args.repeat or (5 if is_cpu else 20)
    args.works = args.works or (CPU_WORKS if is_cpu else GPU_WORKS)
    args.dtypes = args.dtypes or (["f32", "bf16"] if is_cpu else ["bf16", "f32"])
    if not is_cpu and any(work.startswith("jpeg") for work in args.works):
        parser.error("JPEG files are read on the CPU: leave --device out")
    needs_model = any(not work.startswith("jpeg") for work in args.works)
    must_be_there(parser, sys.executable if args.opponents_only else args.speed, args.model if needs_model else None)
    return args


if __name__ == "__main__":
    compare(options())
