"""A served model from the ready lines to the drain."""

import json
import signal
import threading

from harness import CheckFailed, TINY, expect, expect_equal, expect_in

ANSWER = "<|channel|>analysis<|message|>The user greets.<|end|>" \
         "<|start|>assistant<|channel|>final<|message|>Hello there!<|return|>"
LONG = "<|channel|>final<|message|>" + "word " * 400 + "<|return|>"
SHORT = "<|channel|>final<|message|>Hi<|return|>"
GREETING = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}
# Microseconds a step. A slow server needs longer for LONG than any check waits; a brisk one, about
# a second.
SLOW = ("--script-delay-us", "500000")
BRISK = ("--script-delay-us", "2000")


def text_of(chunks, field="content"):
    return "".join(c["choices"][0]["delta"].get(field) or "" for c in chunks if c["choices"])


def finish_of(chunks):
    reasons = [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]]
    return [reason for reason in reasons if reason]


def check_ready_lines_and_endpoints(context):
    with context.scripted(ANSWER) as server:
        server.ready()
        expect_equal(server.get("/health")[0], 200, "/health")
        status, _, models = server.get("/v1/models")
        expect_equal(status, 200, "/v1/models")
        expect_equal([m["id"] for m in models["data"]], ["scripted"], "models")
        expect_equal(server.get("/version")[0], 200, "/version")
        status, headers, page = server.get("/")
        expect_equal(status, 200, "the page")
        expect_in("text/html", headers.get("Content-Type", ""), "type of the page")
        expect_in(b"<html", page.lower(), "the page")
        expect_in(b"vllm:num_requests_running", server.get("/metrics")[2], "metrics")


def check_founding_command_line(context):
    script = context.script(ANSWER)
    with context.serve(
            TINY, "--load-format", "scripted", "--script", script, "--host", "0.0.0.0", "--port",
            "0", "--gpu-memory-utilization", "0.95", "--async-scheduling", "--enforce-eager",
            "--max-model-len", "4096", "--max-num-batched-tokens", "256", "--max-num-seqs",
            "10") as server:
        server.ready()
        expect_in("http://0.0.0.0:", server.lines[1], "ready line")
        server.logged("--gpu-memory-utilization has no effect because")
        server.logged("--enforce-eager has no effect because")
        server.logged("no API key is set")
        server.logged("--api-key sk-")
        expect_equal(server.post("/v1/chat/completions", {"messages": GREETING["messages"]})[0],
                     200, "chat")


def check_chat(context):
    with context.scripted(ANSWER) as server:
        status, headers, answer = server.ready().post("/v1/chat/completions", GREETING)
        expect_equal(status, 200, "status")
        choice = answer["choices"][0]
        expect_equal(choice["message"]["content"], "Hello there!", "content")
        expect_equal(choice["finish_reason"], "stop", "finish reason")
        expect_in("The user greets.", json.dumps(choice["message"]), "reasoning")
        usage = answer["usage"]
        expect_equal(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"],
                     "total tokens")
        expect("x-request-id" in {name.lower() for name in headers}, "no X-Request-Id")


def check_streamed_chat_equals_the_whole(context):
    with context.scripted(ANSWER) as server:
        body = {**GREETING, "stream": True, "stream_options": {"include_usage": True}}
        stream = server.ready().stream("/v1/chat/completions", body)
        expect_equal(stream.status, 200, "status")
        chunks = stream.chunks()
        whole = server.post("/v1/chat/completions", GREETING)[2]
        expect_equal(text_of(chunks), "Hello there!", "content")
        expect_equal(finish_of(chunks), ["stop"], "finish reasons")
        expect(len([c for c in chunks if c["choices"]]) > 3, "the answer came in one piece")
        expect_equal(chunks[-1]["usage"]["completion_tokens"],
                     whole["usage"]["completion_tokens"], "completion tokens")


def check_deltas_are_whole_characters(context):
    text = "Grüße 你好，世界 🌍👩‍🚀 ñ ﷽ end"
    with context.scripted(f"<|channel|>final<|message|>{text}<|return|>") as server:
        stream = server.ready().stream("/v1/chat/completions", {**GREETING, "stream": True})
        chunks = stream.chunks()  # decodes every line as strict UTF-8
        expect_equal(text_of(chunks), text, "content")
        expect("\ufffd" not in json.dumps(chunks, ensure_ascii=False), "a character was split")


def check_sequences_take_the_lines_in_order(context):
    lines = [f"<|channel|>final<|message|>{word}<|return|>" for word in ("one", "two", "three")]
    with context.scripted(*lines) as server:
        server.ready()
        said = [server.post("/v1/chat/completions", GREETING)[2]["choices"][0]["message"]["content"]
                for _ in range(4)]
        expect_equal(said, ["one", "two", "three", "one"], "answers")


def check_bad_requests_leave_the_server_well(context):
    with context.scripted(ANSWER) as server:
        server.ready()
        for body in ("{", "[]", "{\"messages\": 5}", json.dumps({**GREETING, "temperature": "hot"})):
            status, _, answer = server.post("/v1/chat/completions", body)
            expect_equal(status, 400, f"status of {body}")
            expect_equal(answer["error"]["type"], "invalid_request_error", f"type for {body}")
            expect_equal(server.post("/v1/chat/completions", GREETING)[0], 200, "the next request")
        expect_equal(server.get("/v1/nothing")[0], 404, "unknown route")


def check_api_keys(context):
    with context.scripted(ANSWER, arguments=["--api-key", "one", "--api-key", "two"]) as server:
        server.ready()
        expect_equal(server.get("/health")[0], 200, "/health without a key")
        expect_equal(server.post("/v1/chat/completions", GREETING)[0], 401, "without a key")
        for key, status in (("one", 200), ("two", 200), ("three", 401)):
            got = server.post("/v1/chat/completions", GREETING, {"Authorization": f"Bearer {key}"})
            expect_equal(got[0], status, f"with key {key}")
        expect("one" not in server.log.split(), "a key is in the log")


def check_api_key_from_the_environment(context):
    from harness import clean_environment
    env = clean_environment(HOME=str(context.folder), VLLM_API_KEY="secret")
    with context.serve("--load-format", "scripted", "--script", context.script(ANSWER), TINY,
                       "--port", "0", env=env) as server:
        server.ready()
        expect_equal(server.get("/v1/models")[0], 401, "without a key")
        expect_equal(server.get("/v1/models", {"Authorization": "Bearer secret"})[0], 200, "with it")


def check_several_clients_at_once(context):
    answers = [None] * 12
    with context.scripted(ANSWER, arguments=["--max-num-seqs", "4"]) as server:
        server.ready()

        def ask(i):
            answers[i] = server.post("/v1/chat/completions", GREETING)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(answers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for answer in answers:
        expect(answer is not None, "a client got no answer")
        expect_equal(answer[0], 200, "status")
        expect_equal(answer[2]["choices"][0]["message"]["content"], "Hello there!", "content")


def check_client_that_leaves_frees_its_place(context):
    with context.scripted(LONG, SHORT, arguments=[*SLOW, "--max-num-seqs", "1"]) as server:
        stream = server.ready().stream("/v1/chat/completions", {**GREETING, "stream": True})
        next(iter(stream))
        stream.answer.close()
        stream.close()
        # There is one place; were it not freed this request would time out.
        expect_equal(server.post("/v1/chat/completions", GREETING)[0], 200, "the next client")


def events_until(server, request, last):
    """Reads a stream up to the event numbered `last`. -> (id of the stream, its lines)"""
    connection = server.connect()
    connection.request(*request)
    answer = connection.getresponse()
    lines = []
    for raw in answer:
        lines.append(raw.decode().rstrip("\n"))
        if lines[-1] == f"id: {last}":
            break
    answer.close()
    connection.close()
    return answer.getheader("x-strata-stream-id"), lines


def check_a_stream_goes_on_after_a_lost_connection(context):
    with context.scripted(LONG, arguments=BRISK) as server:
        server.ready()
        body = json.dumps({**GREETING, "stream": True, "resumable": True})
        stream, lines = events_until(
            server, ("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"}), 9)
        status, _, rest = server.get(f"/v1/streams/{stream}?from=9")
        expect_equal(status, 200, "status")
        lines = lines[:-1] + rest.decode().split("\n")
        numbers = [int(line[4:]) for line in lines if line.startswith("id: ")]
        expect_equal(numbers, list(range(1, len(numbers) + 1)), "numbers of events")
        data = [line[6:] for line in lines if line.startswith("data: ")]
        expect_equal(data[-1], "[DONE]", "the last event")
        chunks = [json.loads(one) for one in data[:-1]]
        expect_equal(text_of(chunks), "word " * 400, "content")
        expect_equal(finish_of(chunks), ["stop"], "finish reasons")


def check_limits_of_a_key(context):
    with context.scripted(ANSWER, arguments=["--api-key", "one", "--api-key", "two",
                                             "--max-requests-per-minute-per-key", "2",
                                             "--max-tokens-per-minute-per-key", "50000"]) as server:
        server.ready()

        def ask(key):
            return server.post("/v1/chat/completions", GREETING, {"Authorization": f"Bearer {key}"})

        expect_equal(ask("one")[1]["x-ratelimit-remaining-requests"], "1", "remaining requests")
        expect_equal(ask("one")[0], 200, "status")
        status, headers, answer = ask("one")
        expect_equal(status, 429, "status")
        expect_equal(answer["error"]["code"], "rate_limit_exceeded", "code")
        expect(int(headers["Retry-After"]) >= 1, "Retry-After")
        expect_equal(headers["x-ratelimit-limit-tokens"], "50000", "limit of tokens")
        expect_equal(ask("two")[0], 200, "the other key")


def check_the_plan_is_served(context):
    with context.serve("--load-format", "dummy:tiny:3", TINY, "--port", "0", "--threads",
                       "1", "--max-model-len", "1024") as server:
        status, _, plan = server.ready().get("/plan")
        expect_equal(status, 200, "status")
        printed = context.run("plan", TINY, "--load-format", "dummy:tiny:3", "--threads", "1",
                              "--max-model-len", "1024", "--json")
        wanted = json.loads(printed.stdout)
        expect_equal([line["name"] for line in plan["allocations"]],
                     [line["name"] for line in wanted["allocations"]], "lines")
        expect_equal(plan["total_bytes"], wanted["total_bytes"], "total")


def check_prompt_text_is_not_logged(context):
    with context.scripted(ANSWER, arguments=["--log-level", "debug"]) as server:
        body = {**GREETING, "messages": [{"role": "user", "content": "canary-4711"}]}
        server.ready().post("/v1/chat/completions", body)
        server.post("/v1/chat/completions", "{\"canary-4711")
        server.signal()
        server.wait_exit()
    expect("canary-4711" not in server.log, "the log holds a prompt")
    expect("Hello there" not in server.log, "the log holds an answer")


def check_loading_is_503_and_ends_at_a_signal(context):
    with context.serve("--load-format", "dummy:tiny", TINY, "--port", "0", "--fault-inject",
                       "alloc.kv.pool=delay_ms=300000") as server:
        server.wait_until(lambda: "listening on" in server.log, "the port")
        server.port = int(server.log.split("listening on http://127.0.0.1:")[1].split('"')[0])
        status, headers, answer = server.get("/health")
        expect_equal(status, 503, "/health while loading")
        expect_in("loaded", answer["error"]["message"], "message")
        expect_in("Retry-After", headers, "headers")
        server.signal()
        expect_equal(server.wait_exit(), 128 + signal.SIGTERM, "exit code")
        expect_equal(server.lines, [], "standard output")


def check_computed_model_answers(context):
    with context.serve("--load-format", "dummy:tiny:3", TINY, "--port", "0", "--threads",
                       "1") as server:
        body = {"prompt": "one two three", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        first = server.ready().post("/v1/completions", body)
        expect_equal(first[0], 200, "status")
        expect_equal(first[2]["usage"]["completion_tokens"], 8, "completion tokens")
        second = server.post("/v1/completions", body)
        expect_equal(second[2]["choices"][0]["text"], first[2]["choices"][0]["text"], "greedy text")


def check_embedded_model_chats(context):
    with context.serve("--port", "0", "--max-model-len", "2048") as server:
        server.ready()
        expect_equal([m["id"] for m in server.get("/v1/models")[2]["data"]], ["strata-tiny"],
                     "models")
        body = {"messages": [{"role": "user", "content": "Hello!"}], "temperature": 0}
        status, _, answer = server.post("/v1/chat/completions", body)
        expect_equal(status, 200, "status")
        text = answer["choices"][0]["message"]["content"]
        expect(text and answer["choices"][0]["finish_reason"] == "stop", f"answer {answer}")
        chunks = server.stream("/v1/chat/completions", {**body, "stream": True}).chunks()
        expect_equal(text_of(chunks), text, "the streamed answer")


def check_idle_drain(context):
    for number in (signal.SIGTERM, signal.SIGINT):
        with context.scripted(ANSWER) as server:
            server.ready().signal(number)
            expect_equal(server.wait_exit(), 0, "exit code")
            server.logged("draining")


def check_drain_finishes_streams_and_refuses_new_work(context):
    with context.scripted(LONG, arguments=BRISK) as server:
        stream = server.ready().stream("/v1/chat/completions", {**GREETING, "stream": True})
        events = iter(stream)
        next(events)
        server.signal()
        # The engine says so last: by then the service refuses new work too.
        server.wait_until(lambda: "engine: draining" in server.log, "the drain")
        try:
            status = server.post("/v1/chat/completions", GREETING)[0]
            expect_equal(status, 503, "new work while draining")
        except OSError:
            pass  # not accepted at all
        rest = list(events)
        expect_equal(rest[-1], "[DONE]", "end of the stream")
        chunks = [json.loads(event) for event in rest[:-1]]
        expect_equal(finish_of(chunks), ["stop"], "finish reasons")
        stream.close()
        expect_equal(server.wait_exit(), 0, "exit code")


def check_drain_timeout_cuts_off(context):
    with context.scripted(LONG, arguments=[*SLOW, "--drain-timeout", "1"]) as server:
        stream = server.ready().stream("/v1/chat/completions", {**GREETING, "stream": True})
        events = iter(stream)
        next(events)
        server.signal()
        expect_in("shutting_down", list(events)[-1], "the last event")
        expect_equal(server.wait_exit(), 0, "exit code")
        server.logged("cut off")
        stream.close()


def check_second_signal_exits_at_once(context):
    with context.scripted(LONG, arguments=[*SLOW, "--drain-timeout", "300"]) as server:
        stream = server.ready().stream("/v1/chat/completions", {**GREETING, "stream": True})
        next(iter(stream))
        server.signal()
        server.wait_until(lambda: "draining" in server.log, "the drain")
        server.signal()
        expect_equal(server.wait_exit(), 128 + signal.SIGTERM, "exit code")
        stream.close()


def check_device_death_is_answered_and_survived(context):
    with context.scripted(ANSWER, arguments=["--fault-inject", "model.wait=error:2"]) as server:
        status, _, answer = server.ready().post("/v1/chat/completions", GREETING)
        expect(status in (500, 503), f"status {status}")
        expect_in("error", answer, "answer")
        server.wait_until(lambda: server.get("/health")[0] == 200, "health")
        expect_equal(server.post("/v1/chat/completions", GREETING)[0], 200, "after the rebuild")


def check_lasting_device_death_ends_the_program(context):
    with context.scripted(ANSWER, arguments=["--fault-inject", "model.submit=error:*"]) as server:
        server.ready()
        while server.process.poll() is None:
            try:
                status = server.post("/v1/chat/completions", GREETING)[0]
            except (OSError, CheckFailed):
                break
            expect(status in (500, 503), f"status {status}")
        expect_equal(server.wait_exit(), 1, "exit code")
        server.logged("the engine is dead")
