"""Keeps the noise picture's goldens of the face networks: cut_facemesh.py FULL_GOLDEN_FILE.

The portraits are not ours to pass on; with MODA_MEDIA set their goldens are read whole.
"""

import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

if __name__ == "__main__":
    tensors = load_file(sys.argv[1])
    kept = {name: tensor for name, tensor in tensors.items() if ".noise." in name}
    save_file(kept, Path(__file__).parent / "facemesh.safetensors")
