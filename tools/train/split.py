"""The held-out split: an item is held out by the hash of its key, before anything is generated.

Keys: "text:<question in lower case>", "add:<a>+<b>" with a <= b (also "sub:", "mul:"),
"code:<code word in lower case>", "name:<name>", "count:", "compare:" and "spell:" likewise.
"""

HELD_OUT_PERCENT = 8


def fnv1a64(text: str) -> int:
    """FNV-1a, 64 bit, of the UTF-8 bytes."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def mixed(value: int) -> int:
    """splitmix64 finalizer: spreads the hash over all bits."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def held_out(key: str) -> bool:
    """True if the item may never appear in training."""
    return mixed(fnv1a64(key)) % 100 < HELD_OUT_PERCENT
