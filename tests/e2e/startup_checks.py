"""What goes wrong before the server is ready: message, hint, exit code."""

import json
import socket
import struct

from harness import TINY, expect, expect_equal, expect_in

DUMMY = ("--load-format", "dummy:tiny")


def fails(context, arguments, code, *parts, env=None):
    result = context.run("serve", *arguments, env=env)
    expect_equal(result.returncode, code, f"exit code of {arguments}; {result.stderr!r}")
    for part in parts:
        expect_in(part, result.stderr, "message")
    expect_equal(result.stdout, "", "standard output")


def check_unknown_flag_names_the_nearest(context):
    fails(context, ["--max-modle-len", "4096"], 2, "unknown flag --max-modle-len",
          "did you mean --max-model-len?")


def check_bad_values_name_the_flag(context):
    fails(context, ["--port", "99999"], 2, "--port must lie between 0 and 65535")
    fails(context, ["--max-model-len", "lots"], 2, "--max-model-len needs a number of tokens")


def check_refused_flags_say_why(context):
    fails(context, ["--tensor-parallel-size", "2"], 2, "--tensor-parallel-size 2 is not supported",
          "only one rank exists")
    fails(context, ["--ssl-keyfile", "k.pem"], 2, "--ssl-keyfile", "reverse proxy")
    fails(context, ["--enable-lora"], 2, "--enable-lora", "LoRA")


def check_no_command_is_a_usage_error(context):
    expect_equal(context.run().returncode, 2, "exit code without a command")
    expect_equal(context.run("sevre").returncode, 2, "exit code of an unknown command")


def check_unknown_instruction_set(context):
    fails(context, [*DUMMY, "--cpu-isa", "avx9000", "--port", "0"], 2, "avx9000")


def check_cuda_backend_says_what_is_missing(context):
    """Where it can compute, memory is planned on the card."""
    result = context.run("plan", "--backend", "cuda")
    if result.returncode == 0:
        expect_in("VRAM", result.stdout, "plan")
        return
    expect_equal(result.returncode, 2, "exit code of --backend cuda")
    expect_in("strata: --backend cuda: ", result.stderr, "message")
    expect_in("hint: ", result.stderr, "message")


def check_missing_hub_model_says_how_to_get_it(context):
    fails(context, ["nobody/nothing", "--port", "0"], 3, "model nobody/nothing not found",
          ".cache/huggingface/hub", "hf download nobody/nothing")


def check_missing_directory(context):
    fails(context, [context.folder / "absent", "--port", "0"], 3, "absent not found")


def check_directory_without_config(context):
    (context.folder / "empty").mkdir()
    fails(context, [context.folder / "empty", "--port", "0"], 3, "holds no config.json")


def check_model_without_weights(context):
    fails(context, [context.copy_tiny("bare"), "--port", "0"], 3, "safetensors")


def check_unsupported_config_names_file_and_key(context):
    model = context.copy_tiny("llama")
    config = json.loads((model / "config.json").read_text())
    config["model_type"] = "llama"
    (model / "config.json").write_text(json.dumps(config))
    fails(context, [model, "--port", "0"], 3, "config.json", "model_type")


def check_broken_config_names_the_file(context):
    model = context.copy_tiny("broken")
    (model / "config.json").write_text('{"model_type": ')
    fails(context, [model, "--port", "0"], 3, str(model / "config.json"))


def check_broken_tokenizer_names_the_file(context):
    model = context.copy_tiny("tokenless")
    (model / "tokenizer.json").write_text("[]")
    fails(context, [model, *DUMMY, "--port", "0"], 3, "tokenizer.json")


def check_broken_shard_names_the_file(context):
    model = context.copy_tiny("shard")
    shard = model / "model.safetensors"
    shard.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    fails(context, [model, "--port", "0"], 3, "model.safetensors")


def check_cut_off_shard_names_file_and_tensor(context):
    model = context.copy_tiny("short")
    header = json.dumps({"model.norm.weight": {
        "dtype": "BF16", "shape": [192], "data_offsets": [0, 384]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 100)
    fails(context, [model, "--port", "0"], 3, "model.safetensors")


def check_bad_dummy_spec(context):
    fails(context, ["--load-format", "dummy:7b", "--port", "0"], 3, "7b")


def check_too_little_memory(context):
    fails(context, [*DUMMY, "--cpu-memory-limit", "2MiB", "--port", "0"], 4, "MiB", "short")


def check_failed_allocation_names_the_site(context):
    fails(context, [*DUMMY, "--port", "0", "--fault-inject", "alloc.kv.pool=oom"], 4, "kv.pool")


def check_script_errors_name_file_and_line(context):
    script = context.write("bad.jsonl", '{"text": "fine"}\n{"txt": "x"}\n')
    fails(context, ["--load-format", "scripted", "--script", script, TINY, "--port", "0"], 3,
          "bad.jsonl:2", 'unknown key "txt"')


def check_port_in_use_is_told_before_loading(context):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # The model does not exist either: the port is looked at first.
        fails(context, ["nobody/nothing", "--port", port], 5, str(port), "in use")


def check_bad_host(context):
    fails(context, [*DUMMY, "--host", "256.1.2.3", "--port", "0"], 5, "256.1.2.3")


def check_help_and_version(context):
    for arguments in (["--help"], ["serve", "--help"], ["--version"]):
        result = context.run(*arguments)
        expect_equal(result.returncode, 0, f"exit code of {arguments}")
        expect(result.stdout.strip(), f"{arguments} prints nothing")
    expect_in("--max-model-len", context.run("serve", "--help").stdout, "help")


def check_hub_cache_is_found(context):
    cache = context.folder / "hub" / "models--org--tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("c0ffee")
    (cache / "snapshots").mkdir()
    context.copy_tiny("copy").rename(cache / "snapshots" / "c0ffee")
    result = context.run("plan", "org/tiny", *DUMMY,
                         env={"HF_HOME": str(context.folder), "PATH": "/usr/bin"})
    expect_equal(result.returncode, 0, f"exit code; {result.stderr!r}")
    expect_in("snapshots/c0ffee", result.stdout, "plan")
