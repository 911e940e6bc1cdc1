"""The manual page and the completion name every command and option that --help names, and no other."""
import os
import re
import subprocess
import sys

import support
import tap
from tap import claim

COMMANDS = ("serve", "generate", "info", "verify", "models", "doctor", "bench", "config", "user", "audit", "backup", "fsck", "ping",
            "worker")
MANUAL = os.path.join(os.environ["CYI_SOURCE_ROOT"], "docs", "cyberimage.1")
COMPLETION = os.path.join(os.environ["CYI_SOURCE_ROOT"], "tools", "completion", "cyberimage.bash")


def options_of(command):
    """The options that --help lists, long ones and short ones."""
    text = support.expect(0, command, "--help").out
    lines = re.findall(r"^  (?:(-\w), |    )(--[a-z-]+)", text, re.M)
    return {name for pair in lines for name in pair if name}


def complete(*words, folder=None):
    """What the completion offers for the last word."""
    script = """
        source "$1"; shift; compopt() { :; }
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cyberimage; printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script, "bash", COMPLETION, support.PROGRAM, *words], env=support.environment(),
                          stdout=subprocess.PIPE, check=True, cwd=folder)
    return set(done.stdout.decode().split())


@claim
def the_manual_names_every_option_and_no_other(_):
    with open(MANUAL, encoding="utf-8") as file:
        text = file.read()
    named = set(re.findall(r"\bFl -([a-z][a-z-]*)", text))
    real = {name[2:] for command in COMMANDS for name in options_of(command) if name.startswith("--")}
    assert named == real | {"help", "version"}, named ^ (real | {"help", "version"})
    short = set(re.findall(r"\bFl (\w)\b", text))
    assert short == {name[1:] for command in COMMANDS for name in options_of(command) if not name.startswith("--")}
    for command in COMMANDS:
        assert "\n.Ss " + command + "\n" in text, command


@claim
def the_completion_offers_the_commands_and_their_options(_):
    assert complete("") >= {*COMMANDS, "help", "--version"}
    assert complete("ge") == {"generate"}
    assert complete("help", "be") == {"bench"}
    for command in COMMANDS:
        assert complete(command, "-") == options_of(command), command


@claim
def the_completion_offers_values_and_files(folder):
    support.write("picture one.png", b"")
    os.mkdir("pictures")
    assert complete("generate", "--backend", "") == {"auto", "cuda", "onednn", "reference"}
    assert complete("generate", "--precision", "b") == {"bf16"}
    assert complete("generate", "--show-as", "k") == {"kitty"}
    assert complete("generate", "-f", "") == {"png", "jpg", "webp"}
    assert complete("user", "re") == {"remove"} and complete("user", "add", "--role", "a") == {"admin"}
    assert complete("audit", "") == {"list", "export", "head", "verify"}
    assert complete("bench", "--model", "ne") == {"neon"}
    assert complete("generate", "--width", "") == set()
    assert complete("generate", "--cache", "pict", folder=folder) == {"pictures"}
    assert complete("generate", "--init", "picture", folder=folder) == {"picture", "one.png", "pictures"}


if __name__ == "__main__":
    sys.exit(tap.run_claims())
