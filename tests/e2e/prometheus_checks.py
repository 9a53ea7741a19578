"""Debian's Prometheus against a running server: what it scrapes, stores and answers."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request

from harness import clean_environment, expect, expect_equal
from serving_checks import ANSWER, GREETING

PATIENCE_S = 60
# What promtool's style rules say about names that are vLLM's and not ours to choose.
KNOWN_REMARKS = ("metric names should not contain ':'",
                 'non-counter metrics should not have "_total" suffix',
                 "metric names should not contain abbreviated units")

# Expressions of vLLM's and production-stack's dashboards, of KEDA and of the endpoint pickers.
POSITIVE = (
    'vllm:request_success_total{finished_reason="stop"}',
    'sum(vllm:prompt_tokens_total{model_name="scripted"})',
    'sum(vllm:generation_tokens_total{model_name="scripted"})',
    "vllm:e2e_request_latency_seconds_count",
    "vllm:time_to_first_token_seconds_count",
    "vllm:inter_token_latency_seconds_count",
    "vllm:request_prompt_tokens_sum",
    "vllm:request_max_num_generation_tokens_sum",
    "vllm:iteration_tokens_total_count",
    "strata:time_to_first_answer_token_seconds_count",
    'http_requests_total{handler="/chat/completions",status="2xx"}',
    "process_resident_memory_bytes",
)
PRESENT = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm:gpu_cache_usage_ratio",
    "vllm:gpu_prefix_cache_hit_rate",
    "vllm:gpu_prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_queries_total",
    "vllm:cache_config_info",
    "vllm:lora_requests_info",
    "histogram_quantile(0.99, sum by (le) (vllm:e2e_request_latency_seconds_bucket))",
    "histogram_quantile(0.5, sum by (le) (strata:inter_token_latency_seconds_bucket))",
    "sum by (part) (strata:step_seconds_total)",
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def prometheus(context, target):
    """A Prometheus that scrapes `target` every second; yields its port."""
    expect(shutil.which("prometheus"), "the Debian package prometheus is not installed")
    config = context.write("prometheus.yml", json.dumps({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{
            "job_name": "strata",
            "authorization": {"credentials": "secret"},
            "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
        }],
    }))
    port = free_port()
    process = subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={context.folder / 'data'}",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        env=clean_environment(HOME=str(context.folder)))
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def query(port, expression):
    """-> values of the series an expression yields now."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        result = json.load(answer)
    expect_equal(result["status"], "success", expression)
    return [float(series["value"][1]) for series in result["data"]["result"]]


def wait_for(port, expression, condition):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            values = query(port, expression)
            if values and condition(values):
                return values
        except OSError:
            pass  # it is starting
        expect(time.monotonic() < deadline, f"{expression} did not come")
        time.sleep(0.1)


def check_prometheus_scrapes_and_answers(context):
    with context.scripted(ANSWER, arguments=["--api-key", "secret"]) as server:
        server.ready()
        for _ in range(3):
            status, _, _ = server.post("/v1/chat/completions", GREETING,
                                       {"Authorization": "Bearer secret"})
            expect_equal(status, 200, "chat")
        with prometheus(context, server.port) as port:
            wait_for(port, "up", lambda values: values == [1.0])
            wait_for(port, POSITIVE[0], lambda values: values == [3.0])
            for expression in POSITIVE:
                values = query(port, expression)
                expect(values and values[0] > 0, f"{expression} is {values}")
            for expression in PRESENT:
                expect(query(port, expression), f"{expression} is empty")
            # Every series of a scrape was taken.
            scraped, kept = (query(port, name)[0] for name in
                             ("scrape_samples_scraped", "scrape_samples_post_metric_relabeling"))
            expect_equal(scraped, kept, "samples")


def check_promtool_finds_no_fault(context):
    with context.scripted(ANSWER) as server:
        server.ready().post("/v1/chat/completions", GREETING)
        text = server.get("/metrics")[2]
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                            timeout=PATIENCE_S)
    remarks = (result.stdout + result.stderr).decode().splitlines()
    faults = [line for line in remarks if not line.endswith(KNOWN_REMARKS)]
    expect_equal(faults, [], "remarks of promtool")
