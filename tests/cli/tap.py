"""A few lines of test runner: claims are functions, the report is TAP (https://testanything.org)."""
import os
import shutil
import sys
import tempfile
import traceback

CLAIMS = []


class Skip(Exception):
    pass


def claim(function):
    """Registers a test. Its name is the claim; it gets a fresh folder, which is also the working folder."""
    CLAIMS.append(function)
    return function


def run_claims():
    wanted = sys.argv[1:]
    claims = [c for c in CLAIMS if not wanted or any(w in c.__name__ for w in wanted)]
    n_failed = 0
    print("TAP version 13")
    print("1..%d" % len(claims), flush=True)
    for number, function in enumerate(claims, 1):
        name = function.__name__
        folder = tempfile.mkdtemp(prefix="cyberimage-")
        os.chdir(folder)
        try:
            function(folder)
            print("ok %d - %s" % (number, name), flush=True)
        except Skip as reason:
            print("ok %d - %s # SKIP %s" % (number, name, reason), flush=True)
        except Exception:
            n_failed += 1
            print("not ok %d - %s" % (number, name))
            for line in traceback.format_exc().splitlines():
                print("# " + line.encode("ascii", "backslashreplace").decode())
            sys.stdout.flush()
        finally:
            os.chdir("/")
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if n_failed else 0
