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
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Sizes of each kind of work. Items come first; a side is one of pixels.
KINDS = {
    "text": ("COUNT", "TOKENS"),
    "picture": ("COUNT", "HEIGHT", "WIDTH"),
    "frames": ("COUNT", "FRAMES", "HEIGHT", "WIDTH"),
    "jpeg": ("HEIGHT", "WIDTH"),
}
CPU_WORKS = ["text:8x128", "picture:1x980x980", "frames:1x8x280x476", "jpeg:3024x4032", "jpeg:3000x4000"]
GPU_WORKS = ["text:64x128", "picture:16x448x448", "picture:4x896x1120", "frames:4x8x280x476"]
SECONDS = 60  # no further run once all took so long; `speed.rs` has the same
# TFLOP/s of dense bf16 products that are summed in f32, as NVIDIA gives them.
PEAKS = {
    "NVIDIA A100-PCIE-40GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA A100-SXM4-40GB": 312,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA H200": 989,
    "NVIDIA L4": 121,
    "NVIDIA L40S": 362,
    "NVIDIA GeForce RTX 4090": 165,
}


def sizes_of(work):
    kind, _, sizes = work.partition(":")
    return kind, [int(size) for size in sizes.split("x")]


def title(work):
    kind, sizes = sizes_of(work)
    if kind == "jpeg":
        return f"a JPEG of {sizes[1]} x {sizes[0]} to patches"
    count, name = sizes[0], {"text": "text", "picture": "picture", "frames": "clip"}[kind]
    items = f"a {name}" if count == 1 else f"{count} {name}s"
    if kind == "text":
        return f"{items} of {sizes[1]} tokens"
    tokens = (sizes[-2] // 28) * (sizes[-1] // 28)
    if kind == "picture":
        return f"{items} of {tokens} tokens"
    return f"{items} of {sizes[1]} frames, {sizes[1] * tokens} tokens" + ("" if count == 1 else " each")


def measure(args, command, name, packages=None):
    """What a program printed, with medians; its name alone where it failed."""
    env = os.environ | {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    env["RUST_BACKTRACE"] = "0"
    if packages:
        env["PYTHONPATH"] = os.pathsep.join([packages] + list(filter(None, [env.get("PYTHONPATH")])))
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env)
    if run.returncode:
        print(f"failed: {' '.join(map(str, command))}\n{run.stderr[-600:]}", file=sys.stderr)
        return {"name": name}
    found = {"name": name} | json.loads(run.stdout.strip().splitlines()[-1])
    found |= {kind: statistics.median(found[kind]) for kind in ("wall_s", "cpu_s")}
    print(f"{' '.join(map(str, command[2:]))}: {found}", file=sys.stderr)
    return found


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
        has_flash = args.torch_device.startswith("cuda") and dtype == "bf16" and importlib.util.find_spec("flash_attn")
        variants = ["sdpa", "flash_attention_2"] if has_flash else ["sdpa"]
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


def cpu_name():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    flags = next(line for line in lines if line.startswith("flags")).split()
    return ", ".join([name] + [what for flag, what in (("avx512f", "AVX-512"), ("amx_bf16", "AMX")) if flag in flags])


def facts_of(args):
    """Versions, the commit and the model's size."""
    optional = ["flash_attn"] if importlib.util.find_spec("flash_attn") else []
    packages = ["torch", "torchvision", "pillow"] if args.device == "cpu" else ["torch", *optional]
    facts = driver() if args.device != "cpu" else []
    facts += [f"{package} {importlib.metadata.version(package)}" for package in packages]
    run = subprocess.run(["git", "-C", REPOSITORY, "describe", "--always", "--dirty"], capture_output=True, text=True)
    facts.append(f"commit {run.stdout.strip() or 'unknown'}")
    if not all(work.startswith("jpeg") for work in args.works):
        config = json.loads((args.model / "config.json").read_text())
        blocks = f"{config['num_hidden_layers']} + {config['vision_config']['depth']} blocks"
        facts.append(f"model of {blocks}, hidden size {config['hidden_size']}")
    return ", ".join(facts)


def driver():
    """NVIDIA's, where it is there; what WGPU knows stands in the device's name."""
    try:
        run = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True)
    except FileNotFoundError:
        return []
    return [f"driver {version}" for version in sorted(set(run.stdout.split()))]


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
    devices = [f"{name} on {device}" for name, device in dict.fromkeys((one["name"].split(",")[0].split()[0], one["device"]) for one in every)]
    print(f"{datetime.date.today()}, {'; '.join(devices)}. {facts}. `{shlex.join(['python', *sys.argv])}`\n")
    print("| work | type | program | ms a batch | samples/s | tokens/s | TFLOP/s | utilisation | peak memory | rzen / it |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|")
    # They don't depend on the type, which rzen's device may lack.
    operations = {work: rzen["operations"] for work, _, rzen, _ in measured if rzen and "wall_s" in rzen}
    for work, dtype, rzen, others in measured:
        for one in filter(None, [rzen, *others]):
            cells = [title(work), dtype, one["name"]]
            cells += rates(args, one, work, dtype, operations.get(work), rzen) if "wall_s" in one else ["failed"] + [""] * 6
            print(f"| {' | '.join(cells)} |")


def rates(args, one, work, dtype, operations, rzen):
    """Cells of a program's row behind its name."""
    seconds = one["wall_s"]
    cells = [f"{seconds * 1000:.1f}", f"{sizes_of(work)[1][0] / seconds:.1f}", f"{one['tokens'] / seconds:.0f}"]
    rate = operations and operations / seconds / 1e12
    known = PEAKS.get(one["device"].split(",")[0]) if dtype == "bf16" else None
    peak = dict(args.peak_tflops).get(dtype, known)
    cells += [f"{rate:.3g}" if rate else "", f"{rate / peak:.1%}" if rate and peak else ""]
    cells += [f"{one['memory'] / 1e9:.1f} GB" if "memory" in one else ""]
    return cells + [f"{seconds / rzen['wall_s']:.2f}" if rzen and "wall_s" in rzen and one is not rzen else ""]


def compare(args):
    facts, measured = facts_of(args), []  # Known before hours are spent.
    with tempfile.TemporaryDirectory() as place:
        for work in args.works:
            for dtype in ["u8"] if work.startswith("jpeg") else args.dtypes:
                measured.append((work, dtype, *measure_all(args, work, dtype, pathlib.Path(place))))
    (print_cpu if args.device == "cpu" else print_gpu)(args, facts, measured)


def work(text):
    """An argument that names a work."""
    kind, sizes = sizes_of(text)
    pixels = sizes[KINDS[kind].index("HEIGHT") :] if kind in ("picture", "frames") else []
    if len(sizes) != len(KINDS.get(kind, ())) or min(sizes) < 1 or any(side % 28 for side in pixels):
        raise ValueError
    return text


def peak(text):
    """An argument that gives a type its rate."""
    dtype, rate = text.split("=")
    if dtype not in ("f32", "bf16"):
        raise ValueError
    return dtype, float(rate)


def torch_device(device):
    """PyTorch's name of the device that rzen computes on: it has no Vulkan, and a first card."""
    kind = device.split(":")[0]
    if kind in ("cpu", "cuda"):
        return device
    return "mps" if kind == "metal" or sys.platform == "darwin" else "cuda"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", metavar="NAME", help="of rzen: cpu, cuda, wgpu, vulkan or metal, with :N for another")
    parser.add_argument("--torch-device", metavar="NAME", help="of PyTorch, instead of the one that fits --device: cpu, cuda, mps, …")
    parser.add_argument("--model", type=pathlib.Path, default=REPOSITORY / "target/2b", metavar="DIR")
    parser.add_argument("--also", action="append", default=[], metavar="DIR", help="packages of another transformers version")
    parser.add_argument("--threads", type=int, metavar="N", help="of every program: 2, with a GPU all")
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
    parser.add_argument(
        "--peak-tflops",
        nargs="+",
        type=peak,
        default=[],
        metavar="TYPE=N",
        help=f"of dense products on the card, for example bf16=989; by default known for bf16 on {', '.join(PEAKS)}",
    )
    parser.add_argument("--speed", default=REPOSITORY / "target/release/examples/speed", metavar="FILE", help="rzen's side")
    parser.add_argument("--opponents-only", action="store_true", help="leave rzen out")
    args = parser.parse_args()
    is_cpu = args.device == "cpu"
    args.torch_device = args.torch_device or torch_device(args.device)
    args.threads = args.threads or (2 if is_cpu else os.cpu_count())
    args.repeat = args.repeat or (5 if is_cpu else 20)
    args.works = args.works or (CPU_WORKS if is_cpu else GPU_WORKS)
    args.dtypes = args.dtypes or (["f32", "bf16"] if is_cpu else ["bf16", "f32"])
    if not is_cpu and any(work.startswith("jpeg") for work in args.works):
        parser.error("JPEG files are read on the CPU: leave --device out")
    return args


if __name__ == "__main__":
    compare(parse())
