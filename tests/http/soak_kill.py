#!/usr/bin/env python3
"""Two hundred kills of server and worker at random moments, and the account afterwards: for people, some ten minutes.

    CYI_PROGRAM=build/cyberimage CYI_SOURCE_ROOT=. python3 tests/http/soak_kill.py [KILLS [SEED]]"""
import sys
import tempfile
import time

from kills import Kills


def main():
    n_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    print("%d kills, seed %d" % (n_kills, seed), flush=True)
    with tempfile.TemporaryDirectory(prefix="cyberimage-") as folder:
        begin = time.monotonic()
        kills = Kills(folder, n_kills, seed, say=lambda line: print(line, flush=True))
        try:
            kills.run()
            figures = kills.check()
        finally:
            kills.studio.kill()
        print("%s, %.0f s: nothing was lost, doubled or left behind" % (figures, time.monotonic() - begin))


if __name__ == "__main__":
    main()
