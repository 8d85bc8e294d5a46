"""The side of PyTorch and transformers of `compare.py`: runs a work several times and prints what `benches/examples/speed.rs` does.

    opponent.py REPEAT forward MODEL f32|bf16 WORK DEVICE ATTENTION
    opponent.py REPEAT patches FILE pillow|torchvision
"""

import json
import os
import pathlib
import sys
import time

import torch
import transformers

from compare import SECONDS
from side_by_side import sizes_of

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "parity"))
from released import PICTURE, Released, image_processor, read_picture

WARM_UP_GPU = 3  # runs before those that count


def forward(folder, dtype, work, device, attention):
    """A forward pass of transformers that returns its tokens."""
    released = Released(folder, {"f32": torch.float32, "bf16": torch.bfloat16}[dtype], attention, device)
    kind, sizes = sizes_of(work)
    if kind == "text":
        inputs = {"input_ids": torch.randint(0, 256, sizes)}
    else:
        count, frames, height, width = sizes if kind == "frames" else [sizes[0], 1, *sizes[1:]]
        grid = torch.tensor([[1, height // 14, width // 14]] * count * frames)
        prompt = f"<|im_start|>system\n{released.settings['system_prompt']}<|im_end|>\n<|im_start|>user\n"
        prompt += PICTURE.replace("<|image_pad|>", "<|image_pad|>" * int(grid[0].prod() // 4)) * frames
        prompt += "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
        ids = released.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        inputs = {
            "input_ids": ids.repeat(count, 1),
            "image_grid_thw": grid,
            "pixel_values": torch.randn(int(grid.prod(1).sum()), 3 * 2 * 14 * 14),
        }
    inputs = {name: values.to(device) for name, values in inputs.items()}
    positions = torch.arange(inputs["input_ids"].shape[1], device=device).expand(3, *inputs["input_ids"].shape)

    def run():
        pictures = None if kind == "text" else released.picture_states(inputs)
        # Read back, as rzen's are: that waits for a GPU.
        released.decode(released.token_states(inputs, pictures), positions).cpu()
        return inputs["input_ids"].numel()

    return run


def patches(file, processor):
    """A file to patches by the image processor on Pillow or the one on torchvision."""
    process = image_processor([256, 1280], fast=processor == "torchvision")
    return lambda: int(process([read_picture(file)], return_tensors="pt")["image_grid_thw"].prod() // 4)


def main(repeat, what, *args):
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    device = args[3] if what == "forward" else "cpu"
    wall, cpu = [], []
    with torch.inference_mode():
        run = {"forward": forward, "patches": patches}[what](*args)
        for _ in range(1 if device == "cpu" else WARM_UP_GPU):
            tokens = run()
        while len(wall) < int(repeat) and sum(wall) < SECONDS:
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            cpu.append(time.process_time() - start_cpu)
            wall.append(time.perf_counter() - start)
    found = {"wall_s": wall, "cpu_s": cpu, "tokens": tokens, "name": f"transformers {transformers.__version__}", "device": device}
    if device.startswith("cuda"):
        name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
        found |= {"device": name, "memory": torch.cuda.max_memory_allocated(device)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
