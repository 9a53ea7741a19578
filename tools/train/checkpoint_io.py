"""Reading and writing safetensors files and sharded checkpoints, standard library only.

Tensors pass as raw little-endian bytes: {name: (dtype, shape, bytes)}.
"""

import json
import struct
from pathlib import Path


def write_safetensors(path: Path, tensors: dict) -> None:
    """Write tensors in the given order; the header is padded to 8 bytes with spaces."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def read_safetensors(path: Path) -> dict:
    """All tensors of a file."""
    raw = path.read_bytes()
    size = struct.unpack_from("<Q", raw)[0]
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    return {name: (e["dtype"], e["shape"], raw[8 + size + e["data_offsets"][0]:8 + size + e["data_offsets"][1]])
            for name, e in header.items()}


def write_checkpoint(directory: Path, tensors: dict, shards: int) -> None:
    """Write tensors into `shards` files of about equal size, numbered from 0, and the index.

    The cut falls where the size is reached, so a layer may straddle two files.
    """
    total = sum(len(data) for _, _, data in tensors.values())
    groups, size = [{}], 0
    for name, tensor in tensors.items():
        if size >= total * len(groups) / shards and len(groups) < shards:
            groups.append({})
        groups[-1][name] = tensor
        size += len(tensor[2])
    names = [f"model-{i:05d}-of-{len(groups) - 1:05d}.safetensors" for i in range(len(groups))]
    if len(groups) == 1:
        names = ["model.safetensors"]
    where = {}
    for name, group in zip(names, groups):
        write_safetensors(directory / name, group)
        where.update({tensor: name for tensor in group})
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def read_checkpoint(directory: Path) -> dict:
    """All tensors of a checkpoint directory."""
    out = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        out.update(read_safetensors(path))
    return out
