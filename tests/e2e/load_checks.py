"""`strata bench serve` against the scripted server, and against one that is not Strata."""

import http.server
import json
import threading

from harness import expect, expect_equal, expect_in

ANSWER = "<|channel|>analysis<|message|>Hm.<|end|>" \
         "<|start|>assistant<|channel|>final<|message|>Hello there!<|return|>"
LONG = "<|channel|>final<|message|>" + " word" * 600


def load(context, url, *arguments, code=0):
    """-> (standard output, the JSON result or None)"""
    path = context.folder / "result.json"
    result = context.run("bench", "serve", "--base-url", url, "--save-result", "--result-filename",
                         path, *arguments)
    expect_equal(result.returncode, code, f"exit code; {result.stdout!r} {result.stderr!r}")
    return result.stdout, json.loads(path.read_text()) if path.exists() else None


def url_of(server):
    return f"http://127.0.0.1:{server.port}"


def check_random_completions(context):
    with context.scripted(LONG, arguments=["--max-num-seqs", "4"]) as server:
        server.ready()
        out, result = load(context, url_of(server), "--num-prompts", 20, "--random-input-len", 30,
                           "--random-output-len", 10, "--request-rate", 500, "--save-detailed",
                           "--percentile-metrics", "ttft,tpot,itl,e2el")
        scraped = server.get("/metrics")[2].decode()
    for part in ("First model of the server: scripted", "Traffic request rate: 500",
                 "Successful requests:                     20",
                 "Total input tokens:                      600",
                 "Total generated tokens:                  200", "P99 E2EL (ms):"):
        expect_in(part, out, "table")
    expect_equal((result["completed"], result["failed"], result["rejected"]), (20, 0, 0), "counts")
    expect_equal(result["output_lens"], [10] * 20, "output lengths")
    expect_equal(result["model_id"], "scripted", "model")
    expect(all(len(gaps) <= 9 for gaps in result["itls"]), "gaps between chunks")
    expect_in('generation_tokens_total{engine="0",model_name="scripted"} 200', scraped, "metrics")


def check_chat_and_custom_prompts(context):
    prompts = context.write("prompts.jsonl", '{"prompt": "a"}\n{"prompt": "b", "output_tokens": 3}\n')
    with context.scripted(ANSWER) as server:
        server.ready()
        _, result = load(context, url_of(server), "--backend", "openai-chat", "--dataset-name",
                         "custom", "--dataset-path", prompts, "--num-prompts", 4,
                         "--max-concurrency", 1, "--save-detailed", "--num-warmups", 1)
    expect_equal(result["backend"], "openai-chat", "backend")
    expect_equal(result["generated_texts"][0], "Hello there!", "text")
    expect_equal(result["output_lens"][1], 3, "tokens of a bounded answer")
    expect_equal(result["max_concurrent_requests"], 1, "concurrency")


def check_refusals_are_counted_apart(context):
    arguments = ["--max-num-seqs", "1", "--max-num-queued-reqs", "1", "--script-delay-us", "20000"]
    with context.scripted(LONG, arguments=arguments) as server:
        server.ready()
        out, result = load(context, url_of(server), "--num-prompts", 10, "--random-input-len", 5,
                           "--random-output-len", 10)
    expect(result["rejected"] >= 1, f"nothing was refused: {result}")
    expect_equal(result["completed"] + result["rejected"], 10, "answers")
    expect_equal(sum(result["errors_by_kind"].values()), result["failed"], "kinds of failures")
    expect("p99_rejected_server_ms" in result, "no server time of the refusals")
    expect_in("Refused with 429", out, "table")


def check_five_users(context):
    with context.scripted(ANSWER, LONG, arguments=["--max-num-seqs", "5"]) as server:
        server.ready()
        out, result = load(context, url_of(server), "--preset", "five-users")
        _, plain = load(context, url_of(server), "--preset", "five-users", "--backend", "openai")
    expect_in("5 users at once, 50 requests", out, "table")
    expect_equal(result["five_users"]["failed"], 0, "failed")
    expect_equal(result["completed"], 50, "completed")
    expect(result["five_users"]["p99_ttft_ms"] >= result["five_users"]["p50_ttft_ms"], "TTFT")
    expect_equal(plain["endpoint_type"], "openai", "route of text completions")
    expect_equal(plain["completed"], 50, "text completions")
    expect(result["max_concurrent_requests"] <= 5, "more than five at once")


def check_key_and_errors(context):
    with context.scripted(ANSWER, arguments=["--api-key", "k"]) as server:
        url = url_of(server.ready())
        refused = context.run("bench", "serve", "--base-url", url)
        expect_equal(refused.returncode, 2, "exit code without the key")
        expect_in("--api-key", refused.stderr, "hint")
        out, result = load(context, url, "--model", "m", "--num-prompts", 3, code=1)
        expect_equal(list(result["errors_by_kind"].values()), [3], "kinds")
        expect_in("3 x HTTP 401", out, "table")
        _, result = load(context, url, "--api-key", "k", "--num-prompts", 3)
        expect_equal(result["completed"], 3, "completed with the key")
    gone = context.run("bench", "serve", "--base-url", url)
    expect_equal(gone.returncode, 2, "exit code without a server")
    expect_in("is the server up?", gone.stderr, "hint")


class OtherServer(http.server.BaseHTTPRequestHandler):
    """What a smaller server may do: HTTP/1.0 framing, CR LF in events, no usage, a prefix."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece in ('data: {"choices":[{"delta":{"role":"assistant"}}]}\r\n\r\n',
                      'data: {"choices":[{"delta":{"content":"a"}}]}\r\n\r\nda',
                      'ta: {"choices":[{"delta":{},"finish_reason":"stop"}]}\r\n\r\n',
                      "data: [DONE]\r\n\r\n"):
            self.wfile.write(piece.encode())
            self.wfile.flush()


def check_another_server(context):
    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OtherServer)
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    try:
        _, result = load(context, f"http://127.0.0.1:{other.server_address[1]}/some/prefix",
                         "--backend", "openai-chat", "--model", "m", "--num-prompts", 3,
                         "--save-detailed")
        expect_equal(result["generated_texts"], ["a"] * 3, "texts")
        expect_equal(result["output_lens"], [3] * 3, "chunks, where no usage is told")
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
