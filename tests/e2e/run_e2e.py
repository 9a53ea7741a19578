#!/usr/bin/env python3
"""End-to-end checks of the strata program. Python standard library only.

Every function check_* of the modules below is one check; it gets a Context and raises when
something is wrong.
"""

import argparse
import concurrent.futures
import pathlib
import sys
import time
import traceback

import client_checks
import command_checks
import load_checks
import prometheus_checks
import serving_checks
import startup_checks
from harness import CheckFailed, Context

MODULES = (startup_checks, serving_checks, command_checks, load_checks)


def all_checks(modules, pattern):
    for module in modules:
        for name, function in vars(module).items():
            if name.startswith("check_") and pattern in name:
                yield f"{module.__name__.removesuffix('_checks')}: {name[6:].replace('_', ' ')}", function


def run_check(binary, function):
    """-> None, or what went wrong."""
    context = Context(binary)
    try:
        function(context)
        return None
    except CheckFailed as failure:
        return str(failure)
    except Exception:  # a broken check is a failed one
        return traceback.format_exc()
    finally:
        context.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, type=pathlib.Path, help="path of strata")
    parser.add_argument("--only", default="", help="run the checks whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="checks running at once")
    parser.add_argument("--official-client", action="store_true",
                        help="only the checks that need the openai package of npm")
    parser.add_argument("--prometheus", action="store_true",
                        help="only the checks that need the Debian package prometheus")
    options = parser.parse_args()
    if not options.binary.is_file():
        parser.error(f"{options.binary} is not there: build it first")
    modules = MODULES
    if options.official_client:
        modules = (client_checks,)
    elif options.prometheus:
        modules = (prometheus_checks,)
    checks = list(all_checks(modules, options.only))
    begin = time.monotonic()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda check: run_check(options.binary, check[1]), checks)
        for (name, _), trouble in zip(checks, results):
            print(f"{'FAIL' if trouble else 'ok  '}  {name}", flush=True)
            if trouble:
                failed += 1
                print("      " + trouble.rstrip().replace("\n", "\n      "), flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed in {time.monotonic() - begin:.1f} s")
    return 1 if failed or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
