"""The side of PyTorch, transformers and peft of `train.py`: steps several times and prints what `benches/examples/train.rs` does.

    train_opponent.py none|blocks MODEL RANK REPEAT DEVICE f32|bf16 ATTENTION WORK...

With bf16 the frozen weights are bf16 and the adapters f32, as peft has it, and both passes run under autocast.
"""

import json
import os
import pathlib
import sys
import time

import peft
import torch
import transformers

from side_by_side import REPOSITORY, sizes_of

sys.path.insert(0, str(REPOSITORY / "benches/parity"))
from released import Released

LAYERS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj qkv attn.proj fc1 fc2 merger.mlp.0 merger.mlp.2".split()


class Trainer:
    def __init__(self, way, folder, rank, device, dtype, attention, works):
        self.device, self.narrow = device, dtype == "bf16"
        self.released = Released(folder, torch.bfloat16 if self.narrow else torch.float32, attention, device)
        model = self.released.model
        peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=LAYERS), model)
        if way == "blocks":
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()  # Only then it does; there is no dropout in Qwen2-VL.
        self.trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in self.trained:
            parameter.data = parameter.data.float()  # `get_peft_model` does.
        self.optimizer = torch.optim.AdamW(self.trained, lr=2e-4, weight_decay=0.05)
        candidates = [self.micro_batch(work) for work in works]
        self.rows = sum(len(one["input_ids"]) for one in candidates)
        batches = [{"input_ids": torch.randint(0, 256, (self.rows, 16))}, *candidates]
        self.batches = [{name: values.to(device) for name, values in inputs.items()} for inputs in batches]

    def micro_batch(self, work):
        kind, sizes = sizes_of(work)
        if kind == "text":
            return {"input_ids": torch.randint(0, 256, sizes)}
        count, height, width = sizes
        grid = torch.tensor([[1, height // 14, width // 14]] * count)
        image = self.released.model.config.image_token_id
        ids = [image - 3, *[image] * int(grid[0].prod() // 4), 151643]
        pixels = torch.randn(int(grid.prod(1).sum()), 3 * 2 * 14 * 14)
        return {"input_ids": torch.tensor([ids] * count), "image_grid_thw": grid, "pixel_values": pixels}

    def embed(self, inputs):
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.narrow):
            pictures = self.released.picture_states(inputs) if "pixel_values" in inputs else None
            states = self.released.token_states(inputs, pictures)
            positions = torch.arange(states.shape[1], device=self.device).expand(3, *states.shape[:2])
            return self.released.decode(states, positions)

    def step(self):
        with torch.no_grad():
            vectors = torch.cat([self.embed(inputs) for inputs in self.batches])
        vectors.requires_grad_()
        scores = vectors[: self.rows] @ vectors[self.rows :].T / 0.05
        loss = torch.nn.functional.cross_entropy(scores, torch.arange(self.rows, device=self.device))
        loss.backward()
        first = 0
        for inputs in self.batches:
            made = self.embed(inputs)
            (made * vectors.grad[first : first + len(made)]).sum().backward()
            first += len(made)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def main(way, folder, rank, repeat, device, dtype, attention, *works):
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(1)
    trainer = Trainer(way, folder, int(rank), device, dtype, attention, works)
    # `cpu` has one that does nothing.
    synchronize = getattr(torch, device.split(":")[0]).synchronize
    is_cpu, is_cuda = device == "cpu", device.startswith("cuda")
    # Peaks count from here, as in `train.rs`.
    if is_cpu:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    trainer.step()
    synchronize()
    wall, cpu = [], []
    for _ in range(int(repeat)):
        start, start_cpu = time.perf_counter(), time.process_time()
        loss = trainer.step()
        synchronize()
        cpu.append(time.process_time() - start_cpu)
        wall.append(time.perf_counter() - start)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
    found = {"wall_s": wall, "cpu_s": cpu, "samples": trainer.rows, "loss": loss, "versions": versions, "device": device}
    if is_cpu:
        status = pathlib.Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        found["peak_mb"] = peak * 1024 // 1_000_000
    if is_cuda:
        name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
        found |= {"device": name, "memory": torch.cuda.max_memory_allocated(device)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
