"""Byte-level BPE over a rank table, and the o200k word pattern.

`Bpe` is slow and plain; the data generator uses the `tokenizers` package on the exported
tokenizer.json where it is installed, and this class elsewhere.
"""

import base64
from functools import lru_cache
from pathlib import Path

import regex

O200K_PATTERN = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])


def load_ranks(path: Path) -> dict:
    """Read a tiktoken rank file: {token bytes: rank}."""
    ranks = {}
    for line in path.read_text().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return ranks


class Bpe:
    """Encoder for one rank table; token ids are the ranks."""

    def __init__(self, ranks: dict):
        self.ranks = ranks
        self.tokens = {rank: token for token, rank in ranks.items()}
        self.pattern = regex.compile(O200K_PATTERN)
        self.word = lru_cache(maxsize=1 << 18)(self._word)

    def _word(self, word: bytes) -> tuple:
        whole = self.ranks.get(word)
        if whole is not None:
            return (whole,)
        parts = [word[i:i + 1] for i in range(len(word))]
        while len(parts) > 1:
            best, at = None, -1
            for i in range(len(parts) - 1):
                rank = self.ranks.get(parts[i] + parts[i + 1])
                if rank is not None and (best is None or rank < best):
                    best, at = rank, i
            if best is None:
                break
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self.ranks[part] for part in parts)

    def merge_parents(self, token: bytes) -> tuple:
        """The two parts the last merge of `token` joins, or () for a single byte."""
        rank = self.ranks[token]
        parts = [token[i:i + 1] for i in range(len(token))]
        while len(parts) > 2:
            best, at = None, -1
            for i in range(len(parts) - 1):
                r = self.ranks.get(parts[i] + parts[i + 1])
                if r is not None and r < rank and (best is None or r < best):
                    best, at = r, i
            if best is None:
                raise ValueError(f"token {token!r} is not reachable by merges")
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        return tuple(parts) if len(parts) == 2 else ()

    def encode(self, text: str) -> list:
        """Token ids of ordinary text (no special tokens)."""
        out = []
        for match in self.pattern.findall(text):
            out.extend(self.word(match.encode()))
        return out

    def decode(self, ids) -> str:
        """Text of token ids; invalid UTF-8 becomes U+FFFD."""
        return b"".join(self.tokens[i] for i in ids).decode("utf-8", "replace")
