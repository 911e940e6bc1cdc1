#!/usr/bin/env python3
"""Turns migrations/NNN_name.sql into a C file: embed_migrations.py OUTPUT FILE…; the numbers must be 001, 002, …"""

import sys
from pathlib import Path

output, *names = sys.argv[1:]
files = sorted((Path(name) for name in names), key=lambda file: file.name)
lines = ["/* Made by tools/embed_migrations.py: the schema's history. */", '#include "store/migrations.h"', "", "const struct migration migrations[] = {"]
for number, file in enumerate(files, 1):
    if not file.name.startswith(f"{number:03d}_"):
        sys.exit(f"{file}: migration {number:03d} is expected here")
    lines.append(f'    {{ "{file.stem}",')
    for line in file.read_text().splitlines():
        escaped = line.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'      "{escaped}\\n"')
    lines.append("    },")
lines += ["};", f"const int n_migrations = {len(files)};", ""]
Path(output).write_text("\n".join(lines))
