"""Writes compile_commands.json: how the core's C files are compiled, for editors and clang-tidy.

    python tools/compile_commands.py

With the interpreter that runs it, and with the switches of setup.py in the environment. Compiles
only what setup.py tries out to find libev: a compiler that takes notes stands in for the real one.
"""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import sysconfig
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def note(notes, compiler):
    """As the compiler: note what is for a file of the core, and run what is not."""
    sources = [word for word in compiler if word.startswith("src/") and word.endswith(".c")]
    source = sources[0] if sources else None
    output = compiler[compiler.index("-o") + 1] if "-o" in compiler else None
    if "-c" in compiler and source is None:
        os.execvp(compiler[0], compiler)
    if source is not None:
        command = {"directory": str(ROOT), "file": source, "arguments": compiler}
        with open(notes, "a") as file:
            file.write(json.dumps(command) + "\n")
    if output is not None:
        pathlib.Path(output).touch()


def main():
    real = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    with tempfile.TemporaryDirectory() as folder:
        notes = pathlib.Path(folder, "notes")
        notes.touch()
        stand_in = shlex.join([sys.executable, __file__, "--note", str(notes)])
        command = [sys.executable, "setup.py", "-q", "build_ext", "--force"]
        command += ["--build-temp", folder, "--build-lib", folder]
        env = {**os.environ, "CC": f"{stand_in} {real}"}
        subprocess.run(command, cwd=ROOT, env=env, check=True)
        commands = [json.loads(line) for line in notes.read_text().splitlines()]
    commands.sort(key=lambda command: command["file"])
    (ROOT / "compile_commands.json").write_text(json.dumps(commands, indent=1) + "\n")
    print(f"compile_commands.json: {len(commands)} files")


if sys.argv[1:2] == ["--note"]:
    note(sys.argv[2], sys.argv[3:])
else:
    main()
