"""Makes the vectors that `rzen doctor` compares with, from PyTorch and transformers.

    pip install torch 'transformers==4.51.3' pillow safetensors
    cargo xtask doctor --keep target/doctor
    python benches/parity/doctor.py target/doctor

Reads the model and its items from the folder, computes in f64, and writes `crates/rzen/src/doctor/expected.json`.
"""

import json
import pathlib
import sys

import torch

from released import open_model

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def main():
    folder = pathlib.Path(sys.argv[1])
    model = open_model(folder, torch.float64, "eager")
    parts = model.model
    decoder = getattr(parts, "language_model", parts)
    visual = parts.visual if hasattr(parts, "visual") else model.visual
    expected = {}
    for item in json.loads((folder / "items.json").read_text()):
        ids = torch.tensor(item["input_ids"])
        states = decoder.embed_tokens(ids)
        if item["pictures"]:
            rows = [torch.tensor(picture["rows"], dtype=torch.float64).reshape(-1, 1176) for picture in item["pictures"]]
            grids = torch.tensor([picture["grid_thw"] for picture in item["pictures"]])
            states[ids == model.config.image_token_id] = visual(torch.cat(rows), grid_thw=grids)
        # Counted one by one in all three rotary rows, as the released class does.
        positions = torch.arange(len(ids)).expand(3, 1, -1)
        output = decoder(inputs_embeds=states[None], position_ids=positions, use_cache=False)
        vector = torch.nn.functional.normalize(output.last_hidden_state[0, -1], dim=0)
        expected[item["name"]] = [round(float(x), 8) for x in vector]
    target = REPOSITORY / "crates/rzen/src/doctor/expected.json"
    lines = [f'  {json.dumps(name)}: {json.dumps(vector)}' for name, vector in expected.items()]
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"wrote {target}")


with torch.no_grad():
    main()
