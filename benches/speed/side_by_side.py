"""What `compare.py` and `train.py` share: works, devices, and how a program is run and measured."""

import datetime
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import threading

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Sizes of each kind of work. Items come first; a side is one of pixels.
KINDS = {
    "text": ("COUNT", "TOKENS"),
    "picture": ("COUNT", "HEIGHT", "WIDTH"),
    "frames": ("COUNT", "FRAMES", "HEIGHT", "WIDTH"),
    "jpeg": ("HEIGHT", "WIDTH"),
}
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


def must_be_there(parser, program, model=None):
    """Ends with what to do where a program or a model is missing, before anything is measured."""
    if not pathlib.Path(program).is_file():
        parser.error(f"{program} is not there; `cargo build --release --workspace --examples` makes it")
    if model and not (model / "config.json").is_file():
        parser.error(f"{model} is no model; `cargo xtask init --shape qwen2-vl-2b --output {model}` makes one")


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
    run, grown = run_watched([str(part) for part in command], env, args.device != "cpu")
    if run.returncode:
        print(f"failed: {' '.join(map(str, command))}\n{run.stderr[-2000:]}", file=sys.stderr)
        return {"name": name}
    found = {"name": name} | json.loads(run.stdout.strip().splitlines()[-1])
    found |= {kind: statistics.median(found[kind]) for kind in ("wall_s", "cpu_s")}
    found |= {"card_memory": grown} if grown else {}
    print(f"{' '.join(map(str, command[2:]))}: {found}", file=sys.stderr)
    return found


def run_watched(command, env, on_gpu):
    """A program's run, and by how many bytes the memory in use on a card of NVIDIA grew meanwhile, on the card where it grew most;
    0 where that can't be known. Whatever else uses the card counts too."""
    if not on_gpu:
        return subprocess.run(command, capture_output=True, text=True, env=env), 0
    before, grown, ended = card_memory(), [0], threading.Event()

    def watch():
        while not ended.wait(0.5):
            grown.extend(mib - before.get(card, mib) for card, mib in card_memory().items())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run = subprocess.run(command, capture_output=True, text=True, env=env)
    finally:
        ended.set()
        watcher.join()
    return run, max(grown) * 2**20


def card_memory():
    """MiB in use on each card, by its number."""
    query = ["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    except FileNotFoundError:
        return {}
    # Without a driver it prints a sentence, and of some cards `[N/A]`.
    return {int(card): int(mib) for card, mib in (line.split(", ") for line in lines if re.fullmatch(r"\d+, \d+", line))}


def cpu_name():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    flags = next(line for line in lines if line.startswith("flags")).split()
    return ", ".join([name] + [what for flag, what in (("avx512f", "AVX-512"), ("amx_bf16", "AMX")) if flag in flags])


def facts_of(args, packages):
    """Versions, the commit and the model's size."""
    facts = driver() if args.device != "cpu" else []
    facts += [f"{package} {importlib.metadata.version(package)}" for package in packages]
    run = subprocess.run(["git", "-C", REPOSITORY, "describe", "--always", "--dirty"], capture_output=True, text=True)
    facts.append(f"commit {run.stdout.strip() or 'unknown'}")
    if not all(work.startswith("jpeg") for work in args.works):
        facts.append(f"model of {size_of(args.model)}")
    return ", ".join(facts)


def size_of(model):
    config = json.loads((model / "config.json").read_text())
    blocks = f"{config['num_hidden_layers']} + {config['vision_config']['depth']} blocks"
    return f"{blocks}, hidden size {config['hidden_size']}"


def driver():
    """NVIDIA's, where it is there; what WGPU knows stands in the device's name."""
    try:
        run = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True)
    except FileNotFoundError:
        return []
    return [f"driver {version}" for version in sorted(set(run.stdout.split()))]


def headline(facts, every):
    """What stands above a table of a GPU: the day, each program's device, what else is known, the command."""
    devices = dict.fromkeys((one["name"].split(",")[0].split()[0], one["device"]) for one in every)
    devices = [f"{name} on {device}" for name, device in devices]
    return f"{datetime.date.today()}, {'; '.join(devices)}. {facts}. `{shlex.join(['python', *sys.argv])}`\n"


def rate_cells(args, one, operations, dtype):
    """TFLOP/s, and what part that is of the card's peak; empty where it isn't known."""
    rate = operations and operations / one["wall_s"] / 1e12
    known = PEAKS.get(one["device"].split(",")[0]) if dtype == "bf16" else None
    peak = dict(args.peak_tflops).get(dtype, known)
    return [f"{rate:.3g}" if rate else "", f"{rate / peak:.1%}" if rate and peak else ""]


def memory_cells(one):
    """The most that PyTorch says it held, and that the card has given; empty where it isn't known."""
    return [f"{one[kind] / 1e9:.1f} GB" if kind in one else "" for kind in ("memory", "card_memory")]


def attentions(torch_device, dtype):
    """Those of transformers that are to be measured."""
    has_flash = torch_device.startswith("cuda") and dtype == "bf16" and importlib.util.find_spec("flash_attn")
    return ["sdpa", "flash_attention_2"] if has_flash else ["sdpa"]


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


def add_options(parser):
    """Options of every comparison."""
    parser.add_argument("--device", default="cpu", metavar="NAME", help="of rzen: cpu, cuda, wgpu, vulkan or metal, with :N for another")
    parser.add_argument("--torch-device", metavar="NAME", help="of PyTorch, instead of the one that fits --device: cpu, cuda, mps, …")
    parser.add_argument("--also", action="append", default=[], metavar="DIR", help="packages of another transformers version")
    parser.add_argument("--threads", type=int, metavar="N", help="of every program: 2, with a GPU all")
    parser.add_argument(
        "--peak-tflops",
        nargs="+",
        type=peak,
        default=[],
        metavar="TYPE=N",
        help=f"of dense products on the card, for example bf16=989; by default known for bf16 on {', '.join(PEAKS)}",
    )


def parse(parser):
    """Arguments; what `add_options` has left open is chosen by the device."""
    args = parser.parse_args()
    args.torch_device = args.torch_device or torch_device(args.device)
    args.threads = args.threads or (2 if args.device == "cpu" else os.cpu_count())
    return args
