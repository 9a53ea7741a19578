"""Short fine-tuning of exported weights on a CPU: everything but the MXFP4 expert weights.

Usage: finetune.py MODEL_DIR OUT_DIR [--steps N] [--batch N] [--rate R] [--seed S]

Rehearses the training mixture and adds wordings of "How are you?" that the first run confused with
the acknowledgement "OK". Held-out items are rejected as in training. Expert blocks and scales are
written back unchanged; the other tensors are trained as bf16-rounded float32 masters.
"""

import argparse
import random
import shutil
import time
from pathlib import Path

import torch

import texts_en as en
from checkpoint_io import read_checkpoint, write_checkpoint
from export import SHARDS, as_bytes
from harmony import Encoder, prompt_pieces, reply_pieces
from mixture import allowed, set_frame, training_chat
from reference import Reference
from tasks_chat import greeting, intent, single

HOW_ARE_YOU = ["Are you OK?", "You okay?", "You all right?", "Are you okay?", "Is everything OK?", "You good?", "All OK?",
               "Are you alright?", "OK there?", "Everything OK?", "You fine?", "Is it all OK?", "Everything good?",
               "Are you good?", "You doing OK?", "Are you doing well?", *en.HOW_ARE_YOU[0]]
OPENINGS = ["", "", "", "Hi! ", "Hello, ", "Hey, ", "So, ", "Hi Strata. ", "Good morning! "]
LONGEST = 420


def how_are_you(rng: random.Random):
    """One of the added wordings, with and without an opening."""
    question = rng.choice(OPENINGS) + rng.choice(HOW_ARE_YOU)
    question = rng.choice([question, question, question.lower(), question.rstrip("?")])
    return single("greeting", "en", question, en.HOW_ARE_YOU[1], "The user asks how I am.")


def draw(rng: random.Random, encoder: Encoder) -> tuple:
    """(ids, learned) of one short training chat."""
    while True:
        pick = rng.random()
        if pick < 0.45:
            chat = training_chat(rng)
        else:
            chat = (how_are_you if pick < 0.65 else greeting if pick < 0.85 else intent)(rng)
            set_frame(rng, chat)
        if allowed(chat):
            ids, learned = encoder.pieces(prompt_pieces(chat) + reply_pieces(chat))
            if len(ids) <= LONGEST:
                return ids, learned


def batch_loss(model: Reference, chats: list) -> torch.Tensor:
    """Mean cross entropy of the learned tokens of a right-padded batch."""
    width = max(len(ids) for ids, _ in chats)
    ids = torch.zeros(len(chats), width, dtype=torch.long)
    wanted = torch.zeros(len(chats), width, dtype=torch.bool)
    for i, (tokens, learned) in enumerate(chats):
        ids[i, :len(tokens)] = torch.tensor(tokens)
        wanted[i, :len(tokens)] = torch.tensor(learned)
    logits = model.forward(ids, torch.zeros(len(chats), dtype=torch.long))
    return torch.nn.functional.cross_entropy(logits[:, :-1][wanted[:, 1:]], ids[:, 1:][wanted[:, 1:]])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng, encoder = random.Random(args.seed), Encoder(args.model_dir / "tokenizer.json")
    model = Reference(args.model_dir, torch.float32, "cpu")
    masters = {n: w.clone().requires_grad_() for n, w in model.w.items() if not n.endswith(("gate_up_proj", "down_proj"))}
    adam = torch.optim.Adam(masters.values(), lr=args.rate, betas=(0.9, 0.98))
    begin = time.time()
    for step in range(args.steps):
        for n, w in masters.items():
            model.w[n] = w + (w.detach().to(torch.bfloat16).float() - w.detach())
        loss = batch_loss(model, [draw(rng, encoder) for _ in range(args.batch)])
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = args.rate * min(1.0, (step + 1) / 5, (args.steps - step) / (args.steps / 3))
        torch.nn.utils.clip_grad_norm_(masters.values(), 1.0)
        adam.step()
        adam.zero_grad()
        print(f'{{"step": {step + 1}, "loss": {loss.item():.5f}, "seconds": {time.time() - begin:.0f}}}', flush=True)
    tensors = read_checkpoint(args.model_dir)
    args.out.mkdir(parents=True, exist_ok=True)
    for path in args.model_dir.glob("*.json"):
        shutil.copy(path, args.out)
    for n, w in masters.items():
        dtype, shape, _ = tensors[n]
        tensors[n] = (dtype, shape, as_bytes(w.detach().to(torch.bfloat16)))
    write_checkpoint(args.out, tensors, SHARDS)


if __name__ == "__main__":
    main()
