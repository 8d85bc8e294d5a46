"""Times steps of training against PyTorch + transformers + peft, on the CPU in f32, and prints a Markdown table.

    pip install torch torchvision transformers peft pillow
    cargo xtask init --shape qwen2-vl-2b --decoder-layers 4 --vision-blocks 4 --output target/shape-4
    cargo build --release --workspace --examples
    python benches/speed/train.py --model target/shape-4

A step computes the same on both sides: rows whose query is a text of 16 tokens and whose positive is an item of a work; each work is a
micro-batch, the queries another. All are embedded without a graph, InfoNCE over the batch gives the gradient of each vector, each
micro-batch is computed again with a graph and pulled back (gradient caching), gradients are clipped, AdamW steps. An adapter of rank 64
beside every linear layer of both towers trains. rzen's InfoNCE has hardness weights, the mask and a learned temperature, PyTorch's is
plain; on a few vectors that is nothing. `blocks` is activation checkpointing block by block, in PyTorch that of transformers.

One run of each warms up; medians follow. Peak memory is the resident set's while it steps, the model included. PyTorch's weights
are f32, as they must be where it computes so; rzen's are bf16 widened on the way with `blocks`, and f32 without.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

from compare import REPOSITORY, cpu_name, sizes_of

WORKS = ["text:8x128", "picture:2x448x448"]


def opponent(folder, way, rank, repeat, works):
    import peft
    import torch
    import transformers

    sys.path.insert(0, str(REPOSITORY / "benches/parity"))
    from released import Released

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(1)
    released = Released(folder, torch.float32)
    names = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj qkv attn.proj fc1 fc2 merger.mlp.0 merger.mlp.2".split()
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
    peft.inject_adapter_in_model(config, released.model)
    if way == "blocks":
        released.model.gradient_checkpointing_enable({"use_reentrant": False})
        released.model.train()  # Only then it does; there is no dropout in Qwen2-VL.
    trained = [p for p in released.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.05)

    def micro_batch(work):
        kind, sizes = sizes_of(work)
        if kind == "text":
            return {"input_ids": torch.randint(0, 256, sizes)}
        count, height, width = sizes
        grid = torch.tensor([[1, height // 14, width // 14]] * count)
        image = released.model.config.image_token_id
        ids = [image - 3, *[image] * int(grid[0].prod() // 4), 151643]
        pixels = torch.randn(int(grid.prod(1).sum()), 3 * 2 * 14 * 14)
        return {"input_ids": torch.tensor([ids] * count), "image_grid_thw": grid, "pixel_values": pixels}

    def embed(inputs):
        pictures = released.picture_states(inputs) if "pixel_values" in inputs else None
        states = released.token_states(inputs, pictures)
        positions = torch.arange(states.shape[1]).expand(3, *states.shape[:2])
        return released.decode(states, positions)

    candidates = [micro_batch(work) for work in works]
    rows = sum(len(one["input_ids"]) for one in candidates)
    batches = [{"input_ids": torch.randint(0, 256, (rows, 16))}, *candidates]

    def step():
        with torch.no_grad():
            vectors = torch.cat([embed(inputs) for inputs in batches])
        vectors.requires_grad_()
        scores = vectors[:rows] @ vectors[rows:].T / 0.05
        loss = torch.nn.functional.cross_entropy(scores, torch.arange(rows))
        loss.backward()
        first = 0
        for inputs in batches:
            made = embed(inputs)
            (made * vectors.grad[first : first + len(made)]).sum().backward()
            first += len(made)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak counts from here, as in `train.rs`.
    step()
    wall, cpu = [], []
    for _ in range(repeat):
        start, start_cpu = time.perf_counter(), time.process_time()
        loss = step()
        cpu.append(time.process_time() - start_cpu)
        wall.append(time.perf_counter() - start)
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024 // 1_000_000
    name = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_mb": peak, "samples": rows, "loss": loss, "name": name}))


def measure(args, command):
    env = os.environ | {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env)
    if run.returncode:
        print(f"failed: {' '.join(map(str, command))}\n{run.stderr[-2000:]}", file=sys.stderr)
        return None
    found = json.loads(run.stdout.strip().splitlines()[-1])
    print(f"{' '.join(map(str, command[2:]))}: {found}", file=sys.stderr)
    return found | {kind: statistics.median(found[kind]) for kind in ("wall_s", "cpu_s")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=REPOSITORY / "target/shape-4", metavar="DIR")
    parser.add_argument("--rank", type=int, default=64, metavar="N")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    parser.add_argument("--repeat", type=int, default=3, metavar="N")
    parser.add_argument("--ways", nargs="+", choices=["none", "blocks"], default=["none", "blocks"])
    parser.add_argument("--works", nargs="+", default=WORKS, metavar="WORK", help=f"by default {' '.join(WORKS)}")
    parser.add_argument("--program", type=pathlib.Path, default=REPOSITORY / "target/release/examples/train", metavar="FILE")
    parser.add_argument("--opponent", metavar="WAY", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.opponent:
        return opponent(args.model, args.opponent, args.rank, args.repeat, args.works)
    rows = []
    for way in args.ways:
        options = ["--model", args.model, "--rank", args.rank, "--repeat", args.repeat, "--works", *args.works]
        rzen = measure(args, [args.program, "step", way, args.model, args.rank, max(2, args.repeat), *args.works])
        theirs = measure(args, [sys.executable, __file__, "--opponent", way, *options])
        rows.append((way, rzen, theirs))
    names = {theirs["name"] for _, _, theirs in rows if theirs}
    config = json.loads((args.model / "config.json").read_text())
    blocks = f"{config['num_hidden_layers']} + {config['vision_config']['depth']} blocks, hidden size {config['hidden_size']}"
    print(f"{cpu_name()}, {args.threads} threads, {'; '.join(names)}, model of {blocks}, rank {args.rank}, {' '.join(args.works)}.\n")
    print("| checkpointing | program | wall / CPU time of a step | samples a CPU second | peak memory | rzen's speed / it, wall | CPU |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for way, rzen, theirs in rows:
        for name, one in (("rzen", rzen), ("PyTorch + peft", theirs)):
            if not one:
                print(f"| {way} | {name} | failed | | | | |")
                continue
            ratio = [f"{one[kind] / rzen[kind]:.2f}" for kind in ("wall_s", "cpu_s")] if rzen and one is theirs else ["", ""]
            cells = [f"{one['wall_s']:.1f} s / {one['cpu_s']:.1f} s", f"{one['samples'] / one['cpu_s']:.3f}", f"{one['peak_mb'] / 1000:.2f} GB"]
            print(f"| {way} | {name} | {' | '.join(cells + ratio)} |")


if __name__ == "__main__":
    main()
