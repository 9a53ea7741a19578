"""Choose the closed 4096-row subset of o200k and write the tokenizer and configuration files.

Usage: build_vocab.py O200K_BASE_TIKTOKEN MODEL_DIR

The subset holds the 256 bytes, every Chinese character of the texts and facts that o200k has as
one token, and the tokens the corpus uses most, closed under merge parents, without tokens of
several digits. Ids follow the o200k ranks; then the 21 harmony specials; then unnamed rows.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

from bpe import O200K_PATTERN, Bpe, load_ranks
from corpus import vocabulary_corpus

ROWS = 4096
PADDED_ROWS = 16
SPECIALS = {199998: "<|startoftext|>", 199999: "<|endoftext|>", 200002: "<|return|>", 200003: "<|constrain|>",
            200005: "<|channel|>", 200006: "<|start|>", 200007: "<|end|>", 200008: "<|message|>",
            200012: "<|call|>", 200018: "<|endofprompt|>"}
SPECIAL_NAMES = [SPECIALS.get(i, f"<|reserved_{i}|>") for i in range(199998, 200019)]
LAYERS = 6


def choose(full: Bpe) -> list:
    """Token byte strings of the subset in rank order (at most ROWS - specials - PADDED_ROWS)."""
    counts, must = Counter(), set()
    for text, weight in vocabulary_corpus():
        for match in full.pattern.findall(text):
            for token in full.word(match.encode()):
                counts[full.tokens[token]] += weight
        must.update(c.encode() for c in text if "\u4e00" <= c <= "\u9fff" or c in "。，！？：、「」（）；～")
    budget = ROWS - len(SPECIAL_NAMES) - PADDED_ROWS
    chosen = {bytes([i]) for i in range(256)}

    def closure(token: bytes) -> set:
        found, todo = set(), [token]
        while todo:
            t = todo.pop()
            if t in chosen or t in found:
                continue
            found.add(t)
            todo.extend(full.merge_parents(t))
        return found

    usable = lambda t: not re.search(rb"[0-9].*[0-9]", t)
    wanted = sorted(t for t in must if t in full.ranks and len(t) == 3)
    wanted += sorted((t for t in counts if counts[t] >= 2), key=lambda t: (-counts[t] * (len(t) - 0.5), full.ranks[t]))
    for token in wanted:
        extra = closure(token) if usable(token) else set()
        if extra and len(chosen) + len(extra) <= budget:
            chosen |= extra
    return sorted(chosen, key=full.ranks.get)


def byte_letters() -> dict:
    """The byte -> printable character map of byte-level BPE vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {b: chr(b) for b in plain}, 0
    for b in range(256):
        if b not in letters:
            letters[b] = chr(256 + extra)
            extra += 1
    return letters


def merges_of(ranks: dict) -> list:
    """All valid (left, right) splits of all tokens, ordered by the rank of the result."""
    out = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        splits = [s for s in splits if s[0] in ranks and s[1] in ranks]
        out.extend(sorted(splits, key=lambda s: (ranks[s[0]], ranks[s[1]])))
    return out


def write_tokenizer(out: Path, tokens: list) -> None:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json in the layout of gpt-oss."""
    letters = byte_letters()
    show = lambda token: "".join(letters[b] for b in token)
    ranks = {token: i for i, token in enumerate(tokens)}
    first = len(tokens)
    added = [{"id": first + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, name in enumerate(SPECIAL_NAMES)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": O200K_PATTERN}, "behavior": "Isolated", "invert": False}, byte_level]},
        "post_processor": byte_level, "decoder": dict(byte_level, use_regex=True, add_prefix_space=True),
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {show(token): i for token, i in ranks.items()},
                  "merges": [[show(a), show(b)] for a, b in merges_of(ranks)]}}
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n")
    decoder = {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in added}
    config = {"added_tokens_decoder": decoder, "bos_token": "<|startoftext|>", "clean_up_tokenization_spaces": False,
              "eos_token": "<|return|>", "extra_special_tokens": {},
              "model_input_names": ["input_ids", "attention_mask"], "model_max_length": int(1e30),
              "pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(out / "tokenizer_config.json", config)
    write_json(out / "special_tokens_map.json",
               {"bos_token": "<|startoftext|>", "eos_token": "<|return|>", "pad_token": "<|endoftext|>"})


def write_configs(out: Path, first_special: int) -> None:
    """config.json and generation_config.json with the keys of gpt-oss-20b."""
    ids = {name: first_special + i for i, name in enumerate(SPECIAL_NAMES)}
    config = {
        "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
        "eos_token_id": ids["<|return|>"], "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 192, "initial_context_length": 4096, "initializer_range": 0.02, "intermediate_size": 192,
        "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2), "max_position_embeddings": 131072,
        "model_type": "gpt_oss", "num_attention_heads": 16, "num_experts_per_tok": 4, "num_hidden_layers": LAYERS,
        "num_key_value_heads": 2, "num_local_experts": 32, "output_router_logits": False,
        "pad_token_id": ids["<|endoftext|>"],
        "quantization_config": {"modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                           "model.embed_tokens", "lm_head"], "quant_method": "mxfp4"},
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                         "rope_type": "yarn", "truncate": False},
        "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
        "tie_word_embeddings": False, "transformers_version": "4.55.0.dev0", "use_cache": True, "vocab_size": ROWS}
    write_json(out / "config.json", config)
    write_json(out / "generation_config.json", {
        "bos_token_id": ids["<|startoftext|>"], "do_sample": True,
        "eos_token_id": [ids["<|return|>"], ids["<|endoftext|>"], ids["<|call|>"]],
        "pad_token_id": ids["<|endoftext|>"], "transformers_version": "4.55.0.dev0"})


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def main() -> None:
    full, out = Bpe(load_ranks(Path(sys.argv[1]))), Path(sys.argv[2])
    tokens = choose(full)
    subset = Bpe({token: i for i, token in enumerate(tokens)})
    for i, token in enumerate(tokens):
        parents = subset.merge_parents(token)
        if len(token) > 1 and (len(parents) != 2 or any(p not in subset.ranks for p in parents)):
            raise SystemExit(f"token {token!r} does not reproduce itself")
    out.mkdir(parents=True, exist_ok=True)
    write_tokenizer(out, tokens)
    write_configs(out, len(tokens))
    sample = [text for text, _ in vocabulary_corpus()]
    size = sum(len(t.encode()) for t in sample)
    print(f"{len(tokens)} tokens, {size / sum(len(subset.encode(t)) for t in sample):.2f} bytes a token")


if __name__ == "__main__":
    main()
