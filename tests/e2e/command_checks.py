"""The commands that serve nothing: chat, plan, bench."""

import json

from harness import TINY, expect, expect_equal, expect_in

ANSWER = "<|channel|>analysis<|message|>Hm.<|end|>" \
         "<|start|>assistant<|channel|>final<|message|>{}<|return|>"


def chat(context, stdin, *answers):
    script = context.script(*[ANSWER.format(text) for text in answers])
    result = context.run("chat", TINY, "--load-format", "scripted", "--script", script, stdin=stdin)
    expect_equal(result.returncode, 0, f"exit code; {result.stderr!r}")
    return result.stdout


def check_chat_in_a_pipe_prints_answers_only(context):
    expect_equal(chat(context, "hi\nagain\n", "First.", "Second."), "First.\nSecond.\n", "output")


def check_chat_commands(context):
    out = chat(context, "/effort low\n/new\nhi\n/quit\nnever\n", "First.", "Second.")
    expect_equal(out, "First.\n", "output")
    expect_in("/effort low|medium|high", chat(context, "/help\n", "x"), "help")
    expect_in("there is no command /dance", chat(context, "/dance\n", "x"), "unknown command")


def check_chat_reports_what_does_not_fit(context):
    script = context.script(ANSWER.format("x"))
    result = context.run("chat", TINY, "--load-format", "scripted", "--script", script,
                         "--max-model-len", "64", stdin="word " * 200 + "\n")
    expect_equal(result.returncode, 1, "exit code")
    expect_in("64", result.stderr, "message")
    expect_equal(result.stdout, "", "output")


def check_plan(context):
    result = context.run("plan", TINY, "--load-format", "dummy:20b", "--cpu-memory-limit", "64GiB",
                         "--max-model-len", "4096", "--host", "0.0.0.0")
    expect_equal(result.returncode, 0, f"exit code; {result.stderr!r}")
    for part in ("weights.experts", "weights.dense", "kv.pool", "context 4096 tokens"):
        expect_in(part, result.stdout, "plan")


def check_plan_json_and_shortfall(context):
    arguments = ["plan", TINY, "--load-format", "dummy:20b", "--json"]
    result = context.run(*arguments, "--cpu-memory-limit", "64GiB")
    plan = json.loads(result.stdout)
    experts = [line for line in plan["allocations"] if line["name"] == "weights.experts"]
    expect(experts[0]["bytes"] > 9 << 30, "bytes of the experts")
    short = context.run(*arguments, "--cpu-memory-limit", "8GiB")
    expect_equal(short.returncode, 4, "exit code")
    expect_in("short", short.stderr, "message")


def bench(context, *arguments):
    result = context.run("bench", TINY, "--load-format", "dummy:tiny", "--json",
                         "--prompt-tokens", "40", "--output-tokens", "5", *arguments)
    expect_equal(result.returncode, 0, f"exit code; {result.stderr!r}")
    return json.loads(result.stdout)


def check_bench_figures(context):
    record = bench(context)
    expect_equal((record["prompt_tokens"], record["output_tokens"]), (40, 5), "tokens")
    for key in ("prompt_tok_s", "decode_tok_s", "roof_gb_s", "load_s"):
        expect(record[key] > 0, f"{key} is {record[key]}")
    expect_equal(bench(context)["token_hash"], record["token_hash"], "token hash of a second run")


def check_dense_weights_are_read_once_a_step(context):
    one = bench(context, "--batch", "1")["decode_weight_bytes_by_stage"]
    eight = bench(context, "--batch", "8")["decode_weight_bytes_by_stage"]
    for stage in ("attn_qkv", "attn_out", "head"):
        expect(one[stage] > 0, f"{stage} reads no weights")
        expect_equal(eight[stage], one[stage], f"bytes of {stage} at batch 8")


def check_bench_table(context):
    result = context.run("bench", TINY, "--load-format", "dummy:tiny", "--prompt-tokens", "20",
                         "--output-tokens", "3", "--batch", "2")
    expect_equal(result.returncode, 0, f"exit code; {result.stderr!r}")
    for part in ("tok/s", "of the measured roof", "attn_qkv", "weight MB/step", "token hash"):
        expect_in(part, result.stdout, "table")
