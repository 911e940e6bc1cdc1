#!/usr/bin/env python3
"""Runs the tests of build folders (FOLDER, or FOLDER:SUITE for a part) and counts single cases: cmocka's, TAP's, else one a program.

Ends with the line "N passed, N failed, N skipped"; the exit status is 1 when something failed. Output of programs that failed is shown.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

OK, FAILED, SKIPPED = "passed", "failed", "skipped"
CMOCKA = re.compile(r"^\[ *(OK|FAILED|SKIPPED) *\] (\S+)$")
TAP = re.compile(r"^(not )?ok\b[^#]*(# *SKIP)?", re.IGNORECASE)


def cmocka_cases(lines):
    """Results of the cases; the summary that repeats them is left out."""
    cases = {}
    for line in lines:
        if line.startswith("[==========]") and "run" in line and cases:
            break
        match = CMOCKA.match(line)
        if match:
            cases[match[2]] = {"OK": OK, "FAILED": FAILED, "SKIPPED": SKIPPED}[match[1]]
    return list(cases.values())


def tap_cases(lines):
    matches = [TAP.match(line) for line in lines]
    return [FAILED if m[1] else SKIPPED if m[2] else OK for m in matches if m]


def cases_of(test):
    lines = (test.get("stdout", "") + "\n" + test.get("stderr", "")).splitlines()
    cases = cmocka_cases(lines) or tap_cases(lines)
    succeeded = test["result"] in ("OK", "EXPECTEDFAIL")
    if test["result"] == "SKIP":
        return cases or [SKIPPED]
    if not cases:
        return [OK if succeeded else FAILED]
    if not succeeded and FAILED not in cases:  # it crashed, timed out, or leaked at the end
        cases.append(FAILED)
    return cases


def runs_here(build):
    """ThreadSanitizer needs a layout of memory that not every kernel gives: then its tests are skipped."""
    program = build / "cyberimage"
    return not program.exists() or b"FATAL: ThreadSanitizer" not in subprocess.run([program, "--version"], capture_output=True, check=False).stderr


def run(build, suite, counts):
    """Runs one folder's tests, adds to counts, and shows what failed."""
    if not runs_here(build):
        print(f"{build}: its programs do not run on this system")
        counts[SKIPPED] += 1
        return
    log = build / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)  # what an earlier run left says nothing about this one
    part = ["--suite", suite] if suite else []
    subprocess.run(["meson", "test", "-C", build, "--no-rebuild", "--num-processes", "2", "--quiet", *part], check=False)
    programs = 0
    for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
        test = json.loads(line)
        programs += 1
        cases = cases_of(test)
        for case in cases:
            counts[case] += 1
        if FAILED in cases:
            print(f"---- {build}, {test['name']}: {test['result']} ----")
            print(test.get("stdout", "")[-20000:])
            print(test.get("stderr", "")[-20000:], flush=True)
    if programs == 0:
        counts[FAILED] += 1
        print(f"{log}: no test ran")


def main():
    counts = {OK: 0, FAILED: 0, SKIPPED: 0}
    for argument in sys.argv[1:]:
        folder, _, suite = argument.partition(":")
        run(Path(folder), suite, counts)
    print(f"{counts[OK]} passed, {counts[FAILED]} failed, {counts[SKIPPED]} skipped")
    return 1 if counts[FAILED] else 0


sys.exit(main())
