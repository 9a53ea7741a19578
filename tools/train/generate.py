"""Generate packed training rows with many processes.

Usage: generate.py --out DIR --rows N --workers W --seed S [--model-dir DIR]

Each worker writes shards `rows-<worker>-<n>.npy`: uint16 [rows, 4096]; bits 0-11 token id, bit 14
first token of a document, bit 15 token to learn. Rows hold whole documents; the rest is padding.
"""

import argparse
import multiprocessing
import os
import random
from pathlib import Path

import numpy as np

import mixture
from harmony import Encoder, prompt_pieces, reply_pieces

ROW = 4096
SHARD_ROWS = 256
START, LEARN = 1 << 14, 1 << 15
OPEN_ROWS = 48


def document(rng: random.Random, encoder: Encoder) -> np.ndarray:
    """One flagged document: a chat, or plain text for raw completion."""
    pick = rng.random()
    if pick < 0.03:
        text = mixture.gloss_document(rng) if pick < 0.022 else mixture.sum_document(rng)
        ids = encoder.text(text)
        learned = [False] + [True] * (len(ids) - 1)
    else:
        chat = mixture.training_chat(rng)
        ids, learned = encoder.pieces(prompt_pieces(chat) + reply_pieces(chat))
    out = np.array(ids, np.uint16) | (np.array(learned, np.uint16) * LEARN).astype(np.uint16)
    out[0] |= START
    return out


class Packer:
    """First-fit packing of documents into rows of ROW tokens."""

    def __init__(self, padding: int):
        self.padding, self.open, self.done = padding, [], []

    def add(self, doc: np.ndarray) -> None:
        for row in self.open:
            if row[0] + len(doc) <= ROW:
                row[1].append(doc)
                row[0] += len(doc)
                break
        else:
            self.open.append([len(doc), [doc]])
        if len(self.open) > OPEN_ROWS:
            self.open.sort(key=lambda row: -row[0])
            self.done.append(self.close(self.open.pop(0)))

    def close(self, row: list) -> np.ndarray:
        out = np.full(ROW, self.padding, np.uint16)
        out[:row[0]] = np.concatenate(row[1])
        if row[0] < ROW:
            out[row[0]] |= START
        return out


def work(worker: int, seed: int, shards: int, out: Path, model_dir: Path) -> None:
    """Write this worker's shards."""
    encoder = Encoder(model_dir / "tokenizer.json")
    rng = random.Random(seed * 1000 + worker)
    packer = Packer(encoder.specials["<|endoftext|>"])
    for n in range(shards):
        while len(packer.done) < SHARD_ROWS:
            doc = document(rng, encoder)
            if len(doc) <= ROW:
                packer.add(doc)
        order = list(range(len(packer.done)))
        rng.shuffle(order)
        rows, packer.done = np.stack([packer.done[i] for i in order]), []
        part = out / f".part-{worker}-{n}.npy"
        np.save(part, rows)
        os.rename(part, out / f"rows-{worker:03d}-{n:04d}.npy")


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100000)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model-dir", type=Path, default=here.parents[1] / "models/strata-tiny")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    shards = -(-args.rows // (SHARD_ROWS * args.workers))
    workers = [multiprocessing.Process(target=work, args=(w, args.seed, shards, args.out, args.model_dir))
               for w in range(args.workers)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()


if __name__ == "__main__":
    main()
