"""Opens what a training run wrote with transformers and peft, and compares the vectors with those of `rzen embed`.

    pip install torch 'transformers==4.51.3' peft safetensors
    cargo xtask train
    python benches/parity/open_in_transformers.py target/release/rzen runs/world

Compares, for a few texts, stage 1's model, each adapter on it, the souped adapter on it and the souped model. Prints the largest
difference of each; exits with 1 where one is above 1e-5 or where a tensor has no place on either side. Python is needed here alone.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

LIMIT = 1e-5
TEXTS = ["a red star on white", "two blue circles left of a large heart", "x"]
PROMPT = (
    "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n"
    "<|im_start|>assistant\n<|endoftext|>"
)


def open_model(folder):
    model, problems = Qwen2VLForConditionalGeneration.from_pretrained(
        folder, torch_dtype=torch.float32, output_loading_info=True
    )
    problems = {kind: names for kind, names in problems.items() if names}
    if problems:
        sys.exit(f"{folder}: {problems}")
    return model.eval()


def theirs(model, folder):
    """[texts, hidden]: the last token's state, of unit length."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    settings = folder / "processor.json"
    system = json.loads(settings.read_text())["system_prompt"] if settings.is_file() else "You are a helpful assistant."
    decoder = model.get_base_model().model if isinstance(model, PeftModel) else model.model
    rows = []
    for text in TEXTS:
        prompt = PROMPT.format(system=system, text=text)
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        rows.append(decoder(input_ids=ids).last_hidden_state[0, -1])
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def ours(rzen, model, adapter=None):
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        rows = [json.dumps({"id": str(i), "content": [{"text": text}]}) for i, text in enumerate(TEXTS)]
        (place / "rows.jsonl").write_text("\n".join(rows))
        command = [rzen, "embed", "--model", model, "--input", place / "rows.jsonl", "--output", place / "out.safetensors"]
        command += ["--adapter", adapter] if adapter else []
        subprocess.run(command, check=True, capture_output=True)
        return load_file(place / "out.safetensors")["embeddings"]


def main(rzen, run):
    run = pathlib.Path(run)
    base = run / "stage_1/model"
    adapters = sorted(run.glob("*/adapter"))
    pairs = [(base, None)] + [(base, adapter) for adapter in adapters] + [(run / "soup/model", None)]
    worst = 0.0
    for folder, adapter in pairs:
        model = open_model(folder)
        if adapter:
            model = PeftModel.from_pretrained(model, adapter).eval()
        difference = float((theirs(model, folder) - ours(rzen, folder, adapter)).abs().max())
        print(f"{difference:.1e}  {folder}{f' + {adapter}' if adapter else ''}")
        worst = max(worst, difference)
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(*sys.argv[1:])
