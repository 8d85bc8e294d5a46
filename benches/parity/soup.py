"""Opens soups of adapters with peft, and models that they were merged into with transformers, and compares the vectors with rzen's.

    pip install torch 'transformers==4.51.3' peft safetensors
    cargo build --release -p rzen
    python benches/parity/soup.py target/release/rzen BASE ADAPTER ADAPTER…

Makes a soup by each method in a temporary folder, as an adapter and, with `--base`, as a model, and an average of the two merged
models. Prints, of each, the relative error that `soup.json` names and the largest difference of a vector from that of `rzen embed`; exits
with 1 where one is above 1e-5 or where a tensor has no place on either side.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel

from open_in_transformers import LIMIT, open_model, ours, theirs

METHODS = {
    "exact": [],
    "svd": ["--method", "svd", "--rank", "3"],
    "energy": ["--method", "svd", "--energy", "0.9"],
    "slerp": ["--method", "slerp"],
    "ties": ["--method", "ties", "--density", "0.6"],
    "dare": ["--method", "dare", "--density", "0.6", "--seed", "3"],
    "mean-ab": ["--method", "mean-ab"],
    "peft-linear": ["--method", "peft-linear"],
    "peft-ties": ["--method", "peft-ties"],
    "peft-magnitude-prune": ["--method", "peft-magnitude-prune"],
    "peft-dare-linear": ["--method", "peft-dare-linear"],
}


def main(rzen, base, *adapters):
    base, worst = pathlib.Path(base), 0.0
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)

        def soup(name, *words):
            command = [rzen, "soup", *words, "--output", place / name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr}")
            return place / name

        def compare(name, folder, adapter=None):
            model = open_model(folder)
            if adapter:
                model = PeftModel.from_pretrained(model, adapter).eval()
            record = json.loads(((adapter or folder) / "soup.json").read_text())
            difference = float((theirs(model, base) - ours(rzen, folder, adapter)).abs().max())
            print(f"{difference:.1e}  {name}, relative error {record['relative_error']:.1e}, kept energy {record['kept_energy']:.4f}")
            return difference

        for name, words in METHODS.items():
            some = adapters[:2] if name == "slerp" else adapters
            words = [word for adapter in some for word in ("--adapter", adapter)] + words
            worst = max(worst, compare(f"{name}, adapter", base, soup(name, *words)))
            worst = max(worst, compare(f"{name}, merged", soup(f"{name}-merged", *words, "--base", str(base))))
        average = soup("average", "--model", str(place / "ties-merged"), "--model", str(place / "dare-merged"))
        worst = max(worst, compare("average of two models", average))
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(*sys.argv[1:])
