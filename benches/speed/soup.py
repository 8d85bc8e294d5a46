"""Makes random adapters in the shape of a released model and measures `rzen soup` on them: seconds, peak memory, error.

    pip install numpy safetensors
    cargo build --release -p rzen
    python benches/speed/soup.py --shape qwen2-vl-7b --rzen target/release/rzen --work target/soups

Three adapters of rank 64 on every linear layer of decoder and vision tower, in f32 as rzen writes them. They share a part, as adapters
of one base do, and a module's singular values fall off as 1/i. `--decoder-layers` and `--vision-blocks` make them smaller. Peak memory is what
`/usr/bin/time -v` calls the maximum resident set size; pages of mapped files count.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import time

try:
    import numpy as np
    from safetensors.numpy import save_file
except ImportError as missing:
    sys.exit(f"{missing}; install with\n    pip install numpy safetensors")

SHAPES = {  # decoder: width, MLP, width of keys and values
    "qwen2-vl-2b": (1536, 8960, 256),
    "qwen2-vl-7b": (3584, 18944, 512),
}
RUNS = {
    "exact": [],
    "svd 64": ["--method", "svd", "--rank", "64"],
    "svd 0.99": ["--method", "svd", "--energy", "0.99"],
    "ties 64": ["--method", "ties", "--rank", "64"],
    "dare 64": ["--method", "dare", "--rank", "64"],
}


def modules(shape, layers, blocks):
    """Names and [out, in] of all linear layers."""
    width, wide, keys = SHAPES[shape]
    for i in range(blocks):
        for name, dims in {"attn.qkv": (3840, 1280), "attn.proj": (1280, 1280), "mlp.fc1": (5120, 1280), "mlp.fc2": (1280, 5120)}.items():
            yield f"visual.blocks.{i}.{name}", dims
    yield "visual.merger.mlp.0", (5120, 5120)
    yield "visual.merger.mlp.2", (width, 5120)
    for i in range(layers):
        attention = {"q_proj": (width, width), "k_proj": (keys, width), "v_proj": (keys, width), "o_proj": (width, width)}
        for name, dims in attention.items():
            yield f"model.layers.{i}.self_attn.{name}", dims
        for name, dims in {"gate_proj": (wide, width), "up_proj": (wide, width), "down_proj": (width, wide)}.items():
            yield f"model.layers.{i}.mlp.{name}", dims


def make(folder, args, seed):
    if folder.is_dir():
        return
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    own, shared = np.random.default_rng(seed), np.random.default_rng(0)
    fall = (1 / np.sqrt(np.arange(1, args.rank + 1))).astype(np.float32)
    tensors = {}
    for module, (out, width) in modules(args.shape, args.decoder_layers, args.vision_blocks):
        for factor, dims in (("A", (args.rank, width)), ("B", (out, args.rank))):
            mixed = [0.7 * shared.standard_normal(dims, dtype=np.float32), 0.7 * own.standard_normal(dims, dtype=np.float32)]
            scale = fall[:, None] if factor == "A" else fall[None, :]
            tensors[f"base_model.model.{module}.lora_{factor}.weight"] = sum(mixed) * scale * np.float32(0.01)
    save_file(tensors, part / "adapter_model.safetensors", metadata={"format": "pt"})
    targets = sorted({".".join(module.split(".")[3:] if "layers" in module or "blocks" in module else module.split(".")[1:]) for module, _ in
                      modules(args.shape, args.decoder_layers, args.vision_blocks)})
    config = {"peft_type": "LORA", "r": args.rank, "lora_alpha": args.rank, "target_modules": targets, "base_model_name_or_path": args.shape}
    (part / "adapter_config.json").write_text(json.dumps(config))
    part.rename(folder)


def run(command):
    """Seconds of the wall, seconds of the processor, and the peak of memory in MiB."""
    begin = time.monotonic()
    child = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2-vl-2b")
    parser.add_argument("--rzen", default="target/release/rzen")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("target/soups"))
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--adapters", type=int, default=3)
    parser.add_argument("--decoder-layers", type=int, default=28)
    parser.add_argument("--vision-blocks", type=int, default=32)
    parser.add_argument("--runs", default=",".join(RUNS), help=f"some of {', '.join(RUNS)}")
    args = parser.parse_args()
    name = f"{args.shape}-{args.decoder_layers}-{args.vision_blocks}-r{args.rank}"
    folders = [args.work / f"{name}-{n}" for n in range(args.adapters)]
    for n, folder in enumerate(folders):
        make(folder, args, n + 1)
    size = (folders[0] / "adapter_model.safetensors").stat().st_size / 2**20
    print(f"{args.adapters} adapters of {name}, {size:.0f} MiB each")
    print("| soup | rank | relative error | kept energy | seconds | CPU seconds | peak MiB |\n|---|---|---|---|---|---|---|")
    for label in args.runs.split(","):
        output = args.work / f"{name}-soup"
        command = [args.rzen, "soup", *[word for folder in folders for word in ("--adapter", str(folder))]]
        wall, cpu, peak = run([*command, *RUNS[label], "--output", str(output), "--overwrite"])
        soup = json.loads((output / "soup.json").read_text())
        print(f"| {label} | {soup['rank']} | {soup['relative_error']:.2e} | {soup['kept_energy']:.4f} | {wall:.1f} | {cpu:.1f} | {peak:.0f} |", flush=True)
        shutil.rmtree(output)


main()
