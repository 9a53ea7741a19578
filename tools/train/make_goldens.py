"""Make the golden data in float32 and check it with Hugging Face transformers.

Usage: make_goldens.py greedy MODEL_DIR OUT_DIR
       make_goldens.py verify MODEL_DIR OUT_DIR       (transformers; checks golden.jsonl)
       make_goldens.py synth SYNTH_DIR OUT_DIR        (directories of synth_checkpoint.py all)
       make_goldens.py mutations MODEL_DIR SYNTH_DIR OUT_DIR

Formats: tests/golden/README.md. `greedy` uses the plain reference (reference.py), `synth` uses
transformers; `verify` passes prompt and reply of each golden through transformers once: every reply
token must be the argmax there, which is what greedy decoding by transformers would give.
"""

import base64
import hashlib
import json
import sys
import time
from pathlib import Path

import torch

import synth_checkpoint
from golden_prompts import golden_chats
from harmony import Encoder
from hf import hf_run, load_hf
from reference import MUTATIONS, Reference

LEAST_MARGIN = 1.0
LIMIT = 128
BATCH_TOKENS = 12000
TOLERANCE = 1e-4
TINY_PICKS = 16


def packed(values, kind: str) -> str:
    """base64 of little-endian uint16 ("H") or float32 ("f") values."""
    import numpy as np
    return base64.b64encode(np.asarray(values, {"H": "<u2", "f": "<f4"}[kind]).tobytes()).decode()


def router_gaps(hf) -> tuple:
    """Hooks that collect the gap between the last chosen and the next router logit of each layer."""
    found, top = [], hf.config.num_experts_per_tok

    def take(module, args, out):
        logits = torch.nn.functional.linear(args[0].reshape(-1, args[0].shape[-1]), module.weight, module.bias)
        value = logits.sort(-1, descending=True).values
        found.append(value[:, top - 1] - value[:, top] if value.shape[1] > top else torch.full_like(value[:, 0], 1e9))

    return found, [layer.mlp.router.register_forward_hook(take) for layer in hf.model.layers]


def continuations(model: Reference, prompts: list, stops: set, cache: Path) -> dict:
    """Greedy {index: [ids, margins]} by the plain reference; `cache` keeps them, so that a stopped run goes on."""
    done = {int(i): pair for i, pair in json.loads(cache.read_text()).items()} if cache.exists() else {}
    order = sorted((i for i in range(len(prompts)) if i not in done), key=lambda i: len(prompts[i]))
    while order:
        count = max(1, min(len(order), 64, BATCH_TOKENS // (len(prompts[order[0]]) + LIMIT)))
        part, order = order[:count], order[count:]
        done.update(zip(part, model.generate([prompts[i] for i in part], LIMIT, stops)))
        cache.write_text(json.dumps(done))
        print(f"{len(done)} of {len(prompts)} continuations", flush=True)
    return done


def greedy(model_dir: Path, out: Path) -> None:
    """golden.jsonl and tiny_logits.json by the plain reference in float32."""
    encoder = Encoder(model_dir / "tokenizer.json")
    stops = {encoder.specials[s] for s in ("<|return|>", "<|call|>", "<|endoftext|>")}
    chats = golden_chats(encoder, 1)
    model = Reference(model_dir, device="cuda" if torch.cuda.is_available() else "cpu")
    replies = continuations(model, [c[1] for c in chats], stops, out / ".continuations.json")
    lines, dropped, short = [], 0, 0
    for i, (chat, prompt) in enumerate(chats):
        ids, margins = replies[i]
        if len(ids) < 64:
            short += 1
        elif min(margins) < LEAST_MARGIN:
            dropped += 1
        else:
            lines.append(golden_line(chat, prompt, ids, margins))
    (out / "golden.jsonl").write_text("".join(json.dumps(x, ensure_ascii=False, separators=(",", ":")) + "\n" for x in lines))
    print(f"goldens {len(lines)} of {len(chats)}: dropped for margin {dropped} ({100 * dropped / len(chats):.1f} %), "
          f"reply under 64 tokens {short}")
    print("languages", {k: sum(x["lang"] == k for x in lines) for k in ("en", "tw", "cn")}, "| with tools",
          sum(bool(x["tools"]) for x in lines), "| 1k-4k tokens", sum(1000 <= x["prompt_len"] <= 4000 for x in lines))
    tiny_logits(model, lines, model_dir, out)


def verify(model_dir: Path, out: Path) -> None:
    """Check golden.jsonl with Hugging Face transformers: every reply token is its argmax; margins likewise >= 1."""
    hf, wrong, least = load_hf(model_dir, device="cuda" if torch.cuda.is_available() else "cpu"), 0, 1e9
    lines = (out / "golden.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        ids, first = unpacked(line["prompt"]) + unpacked(line["reply"]), line["prompt_len"]
        logits = hf_run(hf, ids, cut=first - 1)[0][:-1]
        value = logits.topk(2, -1).values
        wrong += logits.argmax(-1).tolist() != ids[first:]
        least = min(least, (value[:, 0] - value[:, 1]).min().item())
    print(f"verify: {len(lines)} goldens, {wrong} differ from transformers, least margin {least:.3f}")


def golden_line(chat, prompt: list, ids: list, margins: list) -> dict:
    """One line of golden.jsonl. The messages are left out where the prompt is long (the ids remain)."""
    return {"kind": chat.task, "lang": chat.lang, "effort": chat.effort, "date": chat.date,
            "messages": chat.messages if len(prompt) < 1000 else [], "tools": chat.tools,
            "prompt_len": len(prompt), "prompt": packed(prompt, "H"), "reply_len": len(ids), "reply": packed(ids, "H"),
            "min_margin": round(min(margins), 4)}


def unpacked(text: str) -> list:
    raw = base64.b64decode(text)
    return [raw[i] | raw[i + 1] << 8 for i in range(0, len(raw), 2)]


def tiny_logits(model: Reference, lines: list, model_dir: Path, out: Path) -> None:
    """Log-probabilities, top-16 logits at three positions and layer outputs of six prompts."""
    picks = sorted(lines, key=lambda x: x["prompt_len"])
    picks = [picks[int(k * (len(picks) - 1))] for k in (0, 0.3, 0.6, 0.85, 0.92, 1)]
    rows = []
    for line in picks:
        ids, layers, gaps = unpacked(line["prompt"]), [], []
        row_log_p, logits = model.log_probabilities(ids, layers=layers, gaps=gaps)
        row = {"prompt_len": len(ids), "prompt": line["prompt"], "positions": []}
        for at in (len(ids) // 2, len(ids) - 2, len(ids) - 1):
            value, index = logits[at].topk(16)
            row["positions"].append({"at": at, "top_ids": index.tolist(), "top_logits": packed(value.cpu(), "f"),
                                     "mean": logits[at].mean().item(), "std": logits[at].std().item(),
                                     "log_sum_exp": torch.logsumexp(logits[at], -1).item()})
        row["log_probabilities"] = packed(row_log_p.cpu(), "f")
        row["min_router_gap"] = packed(torch.stack(gaps)[:, 0].min(0).values.cpu(), "f")
        row["layers_last_token"] = [packed(x[0, -1].cpu(), "f") for x in layers]
        rows.append(row)
    shards = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(model_dir.glob("*.safetensors"))}
    (out / "tiny_logits.json").write_text(json.dumps({"shards": shards, "prompts": rows}, indent=1) + "\n")


def synth(synth_dir: Path, out: Path) -> None:
    """synth.json: expected values of the random checkpoints."""
    result = []
    for name, entry in synth_checkpoint.SHAPES.items():
        directory = synth_dir / name
        hf, prompts, worst = load_hf(directory), [], 0.0
        for number in range(len(entry["prompts"])):
            ids = synth_checkpoint.prompt(name, number)
            found, hooks = router_gaps(hf)
            logits, layers = hf_run(hf, ids, layers=True)
            for hook in hooks:
                hook.remove()
            tokens = torch.tensor(ids[1:], device=logits.device)
            log_probabilities = torch.log_softmax(logits, -1)
            row = log_probabilities[:-1].gather(1, tokens[:, None])[:, 0]
            if len(ids) <= 1500:
                exact = Reference(directory, torch.float64).log_probabilities(ids)[0]
                worst = max(worst, (exact - row).abs().max().item())
            top = []
            for at in sorted({0, len(ids) // 2, len(ids) - 1}):
                value, index = log_probabilities[at].topk(8)
                top.append({"at": at, "ids": index.tolist(), "log_probabilities": packed(value.cpu(), "f")})
            prompts.append({"number": number, "length": len(ids), "ids": packed(ids, "H"), "log_probabilities": packed(row.cpu(), "f"),
                            "min_router_gap": packed(torch.stack(found).min(0).values.cpu(), "f"), "top": top,
                            "layers_last_token": [packed(x[-1].cpu(), "f") for x in layers] if number == 1 else []})
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.glob("*.safetensors"))}
        print(f"{name}: max |float32 - float64| of log-probabilities {worst:.2e}")
        result.append({"name": name, "seed": entry["seed"], "shards": entry["shards"], "bf16_experts": entry["bf16_experts"],
                       "config": entry["config"], "sha256": files, "float32_float64": worst, "prompts": prompts})
    (out / "synth.json").write_text(json.dumps({"shapes": result}, indent=1) + "\n")


def mutations(model_dir: Path, synth_dir: Path, out: Path) -> None:
    """mutations.json: how far each mutation moves the log-probabilities of micro and tiny, and the golden replies."""
    lines = [json.loads(x) for x in (out / "golden.jsonl").read_text().splitlines()]
    short = [x for x in lines if x["prompt_len"] < 400]
    picks = short[::max(1, len(short) // TINY_PICKS)][:TINY_PICKS]
    prompts = {"micro": [synth_checkpoint.prompt("micro", 1)], "tiny": [unpacked(x["prompt"]) + unpacked(x["reply"]) for x in picks]}
    places = {"micro": synth_dir / "micro", "tiny": model_dir}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = {k: [Reference(places[k], device=device).log_probabilities(p) for p in prompts[k]] for k in places}
    rows = []
    for name, definition in MUTATIONS.items():
        row = {"name": name, "definition": definition}
        for key, place in places.items():
            model, worst, changed = Reference(place, device=device, mutations={name}), 0.0, 0
            for i, p in enumerate(prompts[key]):
                log_p, logits = model.log_probabilities(p)
                worst = max(worst, (log_p - base[key][i][0]).abs().max().item())
                if key == "tiny":
                    first = picks[i]["prompt_len"] - 1
                    changed += logits[first:-1].argmax(-1).tolist() != p[first + 1:]
            row[f"{key}_max_abs_delta"] = worst
            if key == "tiny":
                row["golden_replies_changed"] = f"{changed} of {len(picks)}"
        row["micro_notices"] = row["micro_max_abs_delta"] > TOLERANCE
        rows.append(row)
        print(row["name"], f"micro {row['micro_max_abs_delta']:.2e} tiny {row['tiny_max_abs_delta']:.2e}", row["golden_replies_changed"])
    (out / "mutations.json").write_text(json.dumps({"tolerance": TOLERANCE, "micro_prompt": 1, "mutations": rows}, indent=1) + "\n")


def main() -> None:
    begin, command, paths = time.time(), sys.argv[1], [Path(p) for p in sys.argv[2:]]
    paths[-1].mkdir(parents=True, exist_ok=True)
    {"greedy": greedy, "verify": verify, "synth": synth, "mutations": mutations}[command](*paths)
    print(f"{command}: {time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
