"""Train strata-tiny on packed rows for a given time.

Usage: train.py --rows DIR --out DIR --seconds N [--model-dir DIR] [--resume CKPT_OR_MODEL_DIR] [--seed S]

Time-based: warm-up 2 %, constant to 45 %, then linear decay to 2 % of the rates; MXFP4 rounding
of the experts from 35 % on, router noise falls to zero. Writes OUT/last.pt each minute, OUT/final.pt
at the end, OUT/train.log.jsonl. --resume continues from a checkpoint or from exported weights.
"""

import argparse
import json
import threading
import time
from pathlib import Path

import numpy as np
import torch

from config import Config
from export import load_into
from model import Tiny
from optimiser import Optimiser

ROW = 4096


class Rows:
    """Random rows from the shards present so far, fetched by a background thread."""

    def __init__(self, directory: Path, rows: int, seed: int):
        self.directory, self.rows, self.rng = directory, rows, np.random.default_rng(seed)
        self.shards, self.queue, self.ready = {}, [], threading.Semaphore(0)
        self.room = threading.Semaphore(8)
        self.order = []
        threading.Thread(target=self.fill, daemon=True).start()

    def refresh(self) -> None:
        """Queue rows of new shards once; start another pass when all have been used."""
        for path in sorted(self.directory.glob("rows-*.npy")):
            if path.name not in self.shards:
                self.shards[path.name] = np.load(path, mmap_mode="r")
                self.order += [(path.name, i) for i in range(len(self.shards[path.name]))]
        if len(self.order) < self.rows and self.shards:
            self.order += [(name, i) for name, a in self.shards.items() for i in range(len(a))]
        self.rng.shuffle(self.order)

    def fill(self) -> None:
        count = 0
        while True:
            self.room.acquire()
            while len(self.order) < self.rows or count % 100 == 0:
                self.refresh()
                count += 1
                if len(self.order) < self.rows:
                    time.sleep(1)
            picked, self.order = self.order[-self.rows:], self.order[:-self.rows]
            batch = torch.from_numpy(np.stack([self.shards[name][i] for name, i in picked]).astype(np.int32))
            self.queue.append(batch.pin_memory() if torch.cuda.is_available() else batch)
            count += 1
            self.ready.release()

    def next(self) -> torch.Tensor:
        self.ready.acquire()
        self.room.release()
        return self.queue.pop(0)


def unpack(raw: torch.Tensor, learned_cap: int) -> tuple:
    """Model inputs of flagged rows: ids, document, position [B, S]; index, targets, valid [learned_cap]."""
    raw = raw.to("cuda", non_blocking=True) if torch.cuda.is_available() else raw
    ids, start, learn = (raw & 4095).long(), (raw >> 14) & 1, (raw >> 15) & 1
    doc = start.cumsum(1).int()
    place = torch.arange(raw.shape[1], device=raw.device)[None].expand_as(raw)
    position = place - torch.cummax(torch.where(start == 1, place, 0), 1).values
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    wanted[:, :-1] = learn[:, 1:] == 1
    flat = wanted.flatten()
    index = torch.argsort(flat.to(torch.int8), descending=True, stable=True)[:learned_cap]
    valid = flat[index].float()
    targets = torch.roll(ids.flatten(), -1)[index]
    return ids, doc, position, index, targets, valid


def schedule(t: float) -> float:
    """Rate factor at time share t in [0, 1]."""
    if t < 0.02:
        return 0.05 + 0.95 * t / 0.02
    return 1.0 if t < 0.45 else 0.02 + 0.98 * max(0.0, (1 - t) / 0.55)


def training_step(model, optimiser, batch: tuple, t: float) -> tuple:
    """One update; returns (loss, share right, balance, loads) as tensors."""
    loss, right, lm_z, balance, z, loads = model(*batch)
    aux = 0.01 if t < 0.5 else 0.003
    (loss + aux * balance + 1e-4 * z + 1e-5 * lm_z).backward()
    optimiser.step(schedule(t))
    return loss.detach(), right, balance.detach(), loads


def parse() -> argparse.Namespace:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--model-dir", type=Path, default=here.parents[1] / "models/strata-tiny")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start-share", type=float, default=0.0)
    parser.add_argument("--batch-rows", type=int, default=12)
    parser.add_argument("--muon-rate", type=float, default=4e-3)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--eager", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Tiny(Config.load(args.model_dir)).to(device)
    if args.resume:
        load_into(model, args.resume)
    if not args.eager:
        model.compile_parts()
    optimiser = Optimiser(model, args.muon_rate, args.adam_rate, not args.eager)
    rows = Rows(args.rows, args.batch_rows, args.seed)
    cap = args.batch_rows * ROW * 3 // 10
    log = open(args.out / "train.log.jsonl", "a")
    begin = saved = None
    step = tokens = 0
    while True:
        batch = unpack(rows.next(), cap)
        now = time.time()
        if step == 3:                       # compilation is not training time
            torch.cuda.synchronize() if device == "cuda" else None
            begin = saved = now = time.time()
        t = args.start_share + (1 - args.start_share) * ((now - begin) / args.seconds) if begin else args.start_share
        if t >= 1:
            break
        model.noise.fill_(0.2 * max(0.0, 1 - t / 0.7))
        model.quantise_on.fill_(1.0 if t > 0.35 else 0.0)
        loss, right, balance, loads = training_step(model, optimiser, batch, t)
        step += 1
        tokens += args.batch_rows * ROW if begin else 0
        if step in (4, 8, 16, 32, 64) or step % 100 == 0:
            entry = {"step": step, "share": round(t, 4), "loss": round(loss.item(), 5), "right": round(right.item(), 5),
                     "balance": round(balance.item(), 4), "least_load": round(loads.min().item() * loads.shape[1], 3),
                     "tokens_per_s": int(tokens / max(time.time() - begin, 1e-3)) if begin else 0}
            print(json.dumps(entry), file=log, flush=True)
        if begin and now - saved > 60:
            saved = now
            torch.save(model.state_dict(), args.out / "last.tmp")
            (args.out / "last.tmp").rename(args.out / "last.pt")
    torch.save(model.state_dict(), args.out / "final.pt")
    print(json.dumps({"steps": step, "tokens": tokens, "seconds": args.seconds, "seed": args.seed}), file=log, flush=True)


if __name__ == "__main__":
    main()
