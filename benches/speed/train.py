"""Times steps of training against PyTorch + transformers + peft, and prints a Markdown table.

    pip install torch torchvision 'transformers==4.51.3' peft pillow
    cargo xtask init --shape qwen2-vl-2b --decoder-layers 4 --vision-blocks 4 --output target/shape-4
    cargo build --release --workspace --examples
    python benches/speed/train.py

A step computes the same on both sides: rows whose query is a text of 16 tokens and whose positive is an item of a work; each work is a
micro-batch, the queries another. All are embedded without a graph, InfoNCE over the batch gives the gradient of each vector, each
micro-batch is computed again with a graph and pulled back (gradient caching), gradients are clipped, AdamW steps. An adapter of rank 64
beside every linear layer of both towers trains. rzen's InfoNCE has hardness weights, the mask and a learned temperature, PyTorch's is
plain; on a few vectors that is nothing. `blocks` is activation checkpointing block by block, in PyTorch that of transformers.

One run of each warms up; medians follow. Peak memory is the resident set's while it steps, the model included. PyTorch's weights
are f32, as they must be where it computes so; rzen's are bf16 widened on the way with `blocks`, and f32 without.

On a GPU (FEATURE is cuda, wgpu, vulkan or metal, and the device's name too; docs/backends.md says what each needs):

    cargo xtask init --shape qwen2-vl-2b --dtype bf16 --output target/2b
    cargo build --release -p benches --examples --features FEATURE
    python benches/speed/train.py --device FEATURE

takes pictures of 1280 tokens in micro-batches of 4, 32 rows a step, with `blocks`, in bf16 and f32; `--times 192` makes the step one of
768 rows. With bf16 frozen weights are bf16 and adapters f32 on both sides, and PyTorch computes under autocast; `flash_attention_2` is
measured too where `flash_attn` is installed. Inputs lie on the device, and the time ends when it has made the step.
"""

import argparse
import pathlib
import sys

from side_by_side import (
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
    size_of,
    sizes_of,
    title,
    work,
)

CPU_WORKS = ["text:8x128", "picture:2x448x448"]
GPU_WORKS = ["picture:4x896x1120"]
OPPONENT = "PyTorch + peft"


def measure_all(args, way, dtype):
    """rzen's figures, and those of each opponent."""
    works = args.works * args.times
    repeat = max(2, args.repeat) if args.device == "cpu" else args.repeat  # A single run on the CPU is one that nothing warms up.
    ours = [args.program, "step", way, args.model, args.rank, repeat, "--device", args.device, "--dtype", dtype, *works]
    rzen = measure(args, ours, "rzen")
    others = []
    for packages in [None, *args.also]:
        for attention in attentions(args.torch_device, dtype):
            name = OPPONENT + (f" with {packages}" if packages else "") + ("" if args.device == "cpu" else f", {attention}")
            theirs = [way, args.model, args.rank, args.repeat, args.torch_device, dtype, attention, *works]
            theirs = [sys.executable, pathlib.Path(__file__).with_name("train_opponent.py"), *theirs]
            others.append(measure(args, theirs, name, packages))
    return rzen, others


def named(args):
    """The works, as the options have them."""
    return " ".join(args.works) + ("" if args.times == 1 else f", {args.times} times")


def print_cpu(args, measured):
    versions = {one["versions"]: None for *_, others in measured for one in others if "versions" in one}
    print(
        f"{cpu_name()}, {args.threads} threads, {'; '.join(versions)}, model of {size_of(args.model)}, rank {args.rank}, {named(args)}.\n"
    )
    print("| checkpointing | program | wall / CPU time of a step | samples a CPU second | peak memory | rzen's speed / it, wall | CPU |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for way, _, rzen, others in measured:
        for one in [rzen, *others]:
            if "wall_s" not in one:
                print(f"| {way} | {one['name']} | failed | | | | |")
                continue
            has_ratio = "wall_s" in rzen and one is not rzen
            ratio = [f"{one[kind] / rzen[kind]:.2f}" for kind in ("wall_s", "cpu_s")] if has_ratio else ["", ""]
            cells = [f"{one['wall_s']:.1f} s / {one['cpu_s']:.1f} s", f"{one['samples'] / one['cpu_s']:.3f}", f"{one['peak_mb'] / 1000:.2f} GB"]
            print(f"| {way} | {one['name']} | {' | '.join(cells + ratio)} |")


def print_gpu(args, facts, measured):
    """Rows of every program, with operations as `rzen plan` counts them, the same for all."""
    every = [one for *_, rzen, others in measured for one in [rzen, *others] if "wall_s" in one]
    versions = {one["versions"]: None for one in every if "versions" in one}
    print(headline("; ".join([*versions, facts]), every))
    rows = sum(sizes_of(work)[1][0] for work in args.works) * args.times
    micro_batches = ", ".join(title(work) for work in args.works) + ("" if args.times == 1 else f", {args.times} times")
    print(f"A step of {rows} rows, rank {args.rank}; micro-batches: {micro_batches}.\n")
    print("| checkpointing | type | program | s a step | samples/s | TFLOP/s | utilisation | peak memory | of the card | rzen / it |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|")
    # They don't depend on the type, which rzen's device may lack.
    operations = {way: rzen["operations"] for way, _, rzen, _ in measured if "wall_s" in rzen}
    for way, dtype, rzen, others in measured:
        for one in [rzen, *others]:
            cells = ["failed"] + [""] * 6
            if "wall_s" in one:
                cells = [f"{one['wall_s']:.2f}", f"{one['samples'] / one['wall_s']:.2f}"]
                cells += rate_cells(args, one, operations.get(way), dtype) + memory_cells(one)
                cells += [f"{one['wall_s'] / rzen['wall_s']:.2f}" if "wall_s" in rzen and one is not rzen else ""]
            print(f"| {' | '.join([way, dtype, one['name'], *cells])} |")


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--model", type=pathlib.Path, metavar="DIR", help="by default target/shape-4; on a GPU target/2b")
    parser.add_argument("--rank", type=int, default=64, metavar="N")
    parser.add_argument("--repeat", type=int, metavar="N", help="steps that are measured: 3, on a GPU 5")
    parser.add_argument("--ways", nargs="+", choices=["none", "blocks"], help="checkpointing; by default both, on a GPU blocks")
    parser.add_argument("--dtypes", nargs="+", choices=["f32", "bf16"], metavar="TYPE", help="on a GPU: f32, bf16; by default both")
    parser.add_argument(
        "--works",
        nargs="+",
        type=work,
        metavar="WORK",
        help=f"text:COUNTxTOKENS or picture:COUNTxHEIGHTxWIDTH; by default {' '.join(CPU_WORKS)}, on a GPU {' '.join(GPU_WORKS)}",
    )
    parser.add_argument("--times", type=int, metavar="N", help="each work makes N micro-batches: 1, on a GPU 8")
    parser.add_argument("--program", type=pathlib.Path, default=REPOSITORY / "target/release/examples/train", metavar="FILE", help="rzen's side")
    args = parse(parser)
    is_cpu = args.device == "cpu"
    if is_cpu and args.dtypes not in (None, ["f32"]):
        parser.error("on the CPU steps are compared in f32: leave --dtypes out")
    args.model = args.model or REPOSITORY / ("target/shape-4" if is_cpu else "target/2b")
    args.repeat = args.repeat or (3 if is_cpu else 5)
    args.ways = args.ways or (["none", "blocks"] if is_cpu else ["blocks"])
    args.dtypes = args.dtypes or (["f32"] if is_cpu else ["bf16", "f32"])
    args.works = args.works or (CPU_WORKS if is_cpu else GPU_WORKS)
    args.times = args.times or (1 if is_cpu else 8)
    must_be_there(parser, args.program, args.model)
    return args


def compare(args):
    facts = facts_of(args, [])  # Known before hours are spent.
    measured = [(way, dtype, *measure_all(args, way, dtype)) for way in args.ways for dtype in args.dtypes]
    if args.device == "cpu":
        print_cpu(args, measured)
    else:
        print_gpu(args, facts, measured)


if __name__ == "__main__":
    compare(options())
