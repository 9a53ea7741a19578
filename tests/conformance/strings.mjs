// Nasty strings for tokenizers, the same for the same seed. Every code point is assigned in the
// Unicode version of assigned.json, so that engines with newer tables agree on its category.
import { readFileSync } from "node:fs";

const assigned = JSON.parse(readFileSync(new URL("assigned.json", import.meta.url)));
export const unicodeVersion = assigned.unicode;

// SplitMix64 on BigInt would be slow: mulberry32, 32 bits of state, is enough to vary strings.
function randomSource(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
}

const isAssigned = (point) => assigned.runs.some(([first, last]) => point >= first && point <= last);
const pointsOf = (pattern) => {
  const out = [];
  for (const [first, last] of assigned.runs)
    for (let point = first; point <= last && out.length < 40000; ++point)
      if (pattern.test(String.fromCodePoint(point))) out.push(point);
  return out;
};
const chars = (text) => Array.from(text, (c) => c.codePointAt(0));

const alphabets = {
  ascii: Array.from({ length: 95 }, (_, i) => i + 32),
  control: [...Array(32).keys(), 127, 0x80, 0x85, 0x9f],
  space: chars(" \t\n\r\v\f\u0085\u00a0\u1680\u2000\u2003\u2007\u2009\u200a\u2028\u2029\u202f\u205f\u3000"),
  notSpace: chars("\u180e\u200b\u200c\u200d\u2060\ufeff\u00ad"),
  newline: chars("\r\n\n\n  \t"),
  symbol: pointsOf(/[\p{P}\p{S}]/u),
  upper: pointsOf(/\p{Lu}/u),
  title: pointsOf(/\p{Lt}/u),
  lower: pointsOf(/\p{Ll}/u),
  modifier: pointsOf(/\p{Lm}/u),
  letter: pointsOf(/\p{Lo}/u),
  mark: pointsOf(/\p{M}/u),
  number: pointsOf(/\p{N}/u),
  emoji: chars("😀👍🏽👩‍👩‍👧‍👦🇹🇼❤️🏴󠁧󠁢󠁥󠁮󠁧󠁿☺️🧑🏿‍💻"),
  fold: chars("sStTrReEvVmMlLdDſK'’ʼ"),
};
const caseMix = ["upper", "title", "lower", "modifier", "letter", "mark"];
const contractions = ["'s", "'S", "'ſ", "'t", "'T", "'re", "'rE", "'RE", "'ve", "'VE", "'m", "'M", "'ll",
  "'LL", "'lL", "'d", "'D", "'", "''s", "'r", "'v", "'l", "'x", "’s", "'K", "'sT", "'ss", "'\u0301s"];
const fragments = ["https://", "///", "\n/", "/\r\n/", "{\"a\": [1, 2.50]}", "<|start|>", "<|end|>", "<|", "|>",
  "  \n  x", "\t\tif (x)\n\t\t{\n", "1,234,567.89", "2026-11-21", "０１２３", "½¾Ⅷ", "हिन्दी", "ไทย", "עִבְרִית", "العَرَبِيَّة",
  "한국어", "日本語テスト", "台灣繁體", "Ǆǅǆ", "ﬁﬂ", "ß", "İi̇", "a\u0301\u0302", "\u0301", "A\u0301B", "\ufeff{", "e\u200dx"];

export function makeStrings({ seed, count, tokens }) {
  const random = randomSource(seed);
  const int = (limit) => Math.floor(random() * limit);
  const pick = (list) => list[int(list.length)];
  const names = Object.keys(alphabets);
  const letterFrom = (name) => String.fromCodePoint(pick(alphabets[name]));
  const repeat = (length, make) => Array.from({ length }, make).join("");
  const anyPoint = () => {
    const [first, last] = pick(assigned.runs);
    return String.fromCodePoint(first + int(last - first + 1));
  };
  const word = () => repeat(1 + int(7), () => letterFrom(pick(caseMix)));
  const asciiWord = () => {
    const base = repeat(1 + int(9), () => String.fromCharCode(97 + int(26)));
    return [base, base.toUpperCase(), base[0].toUpperCase() + base.slice(1)][int(3)];
  };
  const makers = [
    () => repeat(1 + int(40), anyPoint),
    () => repeat(1 + int(40), () => letterFrom(pick(names))),
    () => { const few = [pick(names), pick(names)]; return repeat(1 + int(60), () => letterFrom(pick(few))); },
    () => repeat(1 + int(30), () => letterFrom(pick(caseMix))),
    () => repeat(1 + int(8), () => pick([word, asciiWord])() + pick(contractions) + pick(["", " ", word()])),
    () => repeat(1 + int(30), () => letterFrom(pick(["space", "newline", "space", "ascii", "notSpace"]))),
    () => repeat(1 + int(12), () => pick(["", " ", "  ", "\n"]) + repeat(int(6), () => letterFrom("number"))),
    () => repeat(1 + int(12), () => pick([" ", ""]) + repeat(1 + int(4), () => letterFrom("symbol")) +
      pick(["", "/", "\n", "\r\n", "/\n/"])),
    () => repeat(1 + int(10), () => pick(fragments) + pick(["", " ", "\n"])),
    () => repeat(1 + int(20), () => pick(tokens)),
    () => repeat(1 + int(15), () => pick([" ", "", "-"]) + pick(tokens).trim()),
    () => repeat(1 + int(20), () => pick([" ", ". ", "\n\n", ", "]) + asciiWord()),
    () => repeat(1 + int(20), () => letterFrom("fold")),
    () => { const unit = pick([asciiWord(), letterFrom(pick(names)), pick(tokens)]); return unit.repeat(1 + int(300)); },
    () => repeat(60 + int(400), () => letterFrom(pick(["lower", "letter"]))).slice(0, 500),
  ];
  const whole = (text) => text.isWellFormed?.() ?? !/[\ud800-\udfff]/u.test(text);
  const out = [""];
  while (out.length < count) {
    const text = pick(makers)();
    if (whole(text)) out.push(text);
  }
  return out;
}

// A token's text is of use here when it is whole and of assigned code points.
export const isUsable = (text) =>
  !text.includes("\ufffd") && Array.from(text).every((c) => isAssigned(c.codePointAt(0)));
