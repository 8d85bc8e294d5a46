"""The pipeline of the released RzenEmbed code, on transformers 4.51 or newer.

The released class hands `inputs_embeds` to the decoder without position ids, which counts tokens one by one in all three rotary rows
and works with transformers below 4.52 only. Here the two towers are called one after the other, with the positions said, so that each
version computes the same. Pictures go through Pillow twice: once on reading, once in the image processor.
"""

import inspect
import json
import math
import pathlib

import torch
import transformers
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

TOKEN_PIXELS = 28 * 28
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
SETTINGS = {
    "system_prompt": "You are a helpful assistant.",
    "text_prompt": "",
    "picture_prompt": "",
    "image_tokens": [256, 1280],
    "frame_tokens": [160, 180],
    "max_length": 2000,
}


def load_size(height, width, factor=28, least=4 * TOKEN_PIXELS, most=16384 * TOKEN_PIXELS, ratio=200):
    """(height, width) after the resize on reading."""
    h, w = (max(factor, round(side / factor) * factor) for side in (height, width))
    if h * w > most:
        beta = math.sqrt(height * width / most)
        h, w = (math.floor(side / beta / factor) * factor for side in (height, width))
    elif h * w < least:
        beta = math.sqrt(least / (height * width))
        h, w = (math.ceil(side * beta / factor) * factor for side in (height, width))
    if max(h, w) / min(h, w) > ratio:
        h, w = (w * ratio, w) if h > w else (h, h * ratio)
    return h, w


def read_picture(path):
    picture = Image.open(path).convert("RGB")
    height, width = load_size(picture.height, picture.width)
    return picture.resize((width, height))


def image_processor(tokens, fast=False):
    """The one that works on Pillow, or the one on torchvision; `tokens`: least and most of a picture."""
    name = "Qwen2VLImageProcessor"
    if fast:
        name += "" if hasattr(transformers, name + "Pil") else "Fast"
    elif hasattr(transformers, name + "Pil"):
        name += "Pil"
    least, most = (count * TOKEN_PIXELS for count in tokens)
    return getattr(transformers, name)(min_pixels=least, max_pixels=most)


class Released:
    def __init__(self, folder, dtype, attention="sdpa", device="cpu"):
        folder = pathlib.Path(folder)
        own = folder / "processor.json"
        self.settings = SETTINGS | (json.loads(own.read_text()) if own.is_file() else {})
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.model = open_model(folder, dtype, attention).to(device)
        parts = self.model.model
        self.decoder = getattr(parts, "language_model", parts)
        self.visual = parts.visual if hasattr(parts, "visual") else self.model.visual

    def prepare(self, text, pictures):
        """Tokens of one item and, with pictures (paths), their patches and grids. A single path is a picture, a list are frames."""
        is_list = isinstance(pictures, list)
        files = pictures if is_list else [pictures] if pictures else []
        inputs, words = {}, text
        if files:
            limits = self.settings["frame_tokens" if is_list else "image_tokens"]
            out = image_processor(limits)([read_picture(file) for file in files], return_tensors="pt")
            inputs = {"pixel_values": out["pixel_values"], "image_grid_thw": out["image_grid_thw"]}
        words += self.settings["picture_prompt" if files else "text_prompt"]
        prompt = (
            f"<|im_start|>system\n{self.settings['system_prompt']}<|im_end|>\n<|im_start|>user\n{PICTURE * len(files)}{words}"
            "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
        )
        for grid in inputs.get("image_grid_thw", []):
            prompt = prompt.replace("<|image_pad|>", "<|picture|>" * int(grid.prod() // 4), 1)
        prompt = prompt.replace("<|picture|>", "<|image_pad|>")
        inputs["input_ids"] = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        return inputs

    def picture_states(self, inputs):
        """[picture tokens, hidden]"""
        dtype = next(self.visual.parameters()).dtype
        out = self.visual(inputs["pixel_values"].to(dtype), grid_thw=inputs["image_grid_thw"])
        return out if torch.is_tensor(out) else out.pooler_output

    def token_states(self, inputs, pictures=None):
        """[1, tokens, hidden]: what the decoder takes."""
        states = self.decoder.embed_tokens(inputs["input_ids"])
        if pictures is not None:
            mask = (inputs["input_ids"] == self.model.config.image_token_id).unsqueeze(-1).expand_as(states)
            states = states.masked_scatter(mask, pictures)
        return states

    def positions(self, inputs, mode):
        """[3, 1, tokens]"""
        ids = inputs["input_ids"]
        if mode == "sequential":
            return torch.arange(ids.shape[1]).expand(3, *ids.shape)
        owner = self.model if hasattr(self.model, "get_rope_index") else self.model.model
        given = {"input_ids": ids, "image_grid_thw": inputs.get("image_grid_thw"), "attention_mask": torch.ones_like(ids)}
        if "mm_token_type_ids" in inspect.signature(owner.get_rope_index).parameters:
            given["mm_token_type_ids"] = (ids == self.model.config.image_token_id).int()
        return owner.get_rope_index(**given)[0]

    def decode(self, states, positions, mask=None):
        """[items, hidden], of unit length: the last state that counts."""
        if mask is None:
            mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        last = self.decoder(
            input_ids=None, inputs_embeds=states, position_ids=positions, attention_mask=mask, use_cache=False
        ).last_hidden_state
        pooled = last[torch.arange(len(last), device=last.device), mask.sum(1) - 1]
        return torch.nn.functional.normalize(pooled.float(), dim=1)

    def embed(self, items, mode):
        """Vectors of prepared items, each a batch of its own, and of all of them as one batch padded on the right."""
        alone, rows = [], []
        for inputs in items:
            states = self.token_states(inputs, inputs.get("picture_states"))
            positions = self.positions(inputs, mode)
            alone.append(self.decode(states, positions)[0])
            rows.append((states[0], positions[:, 0].T, torch.ones_like(inputs["input_ids"][0])))
        states, positions, mask = (pad_sequence(column, batch_first=True) for column in zip(*rows))
        return torch.stack(alone), self.decode(states, positions.movedim(2, 0), mask)


def open_model(folder, dtype, attention):
    name = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    model, problems = Qwen2VLForConditionalGeneration.from_pretrained(
        folder, attn_implementation=attention, output_loading_info=True, **{name: dtype}
    )
    problems = {kind: names for kind, names in problems.items() if set(names) - {"lm_head.weight"}}
    if problems:
        raise SystemExit(f"{folder}: {problems}")
    return model.eval()
