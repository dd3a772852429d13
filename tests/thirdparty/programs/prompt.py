"""prompt_toolkit asks at a terminal, while the loop goes on."""

import fcntl
import pty
import struct
import subprocess
import termios

if sys.argv[1:] != ["child"]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(sys.argv[1], "w") as file:
        file.write(SOURCE)
    child = subprocess.Popen(
        [sys.executable, sys.argv[1], "child"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
    )  # fmt: skip
    os.close(theirs)
    seen, sent = b"", 0
    answers = [(b"name", b"some\x7f\x7fmebody\r"), (b"again", b"other\r"), (b"last", b"\x04")]
    while True:
        try:
            data = os.read(ours, 10_000)
        except OSError:
            break
        seen += data
        if sent < len(answers) and answers[sent][0] + b">" in seen:
            os.write(ours, answers[sent][1])
            sent += 1
    assert child.wait() == 0, seen
    assert b"['somebody', 'other', 'end of file', True]" in seen, seen
else:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.patch_stdout import patch_stdout

    async def main():
        ticks = []

        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0.001)

        other = asyncio.create_task(tick())
        session = PromptSession()
        answers = []
        with patch_stdout():
            answers.append(await session.prompt_async("name> "))
            answers.append(await session.prompt_async("again> "))
            try:
                await session.prompt_async("last> ")
            except EOFError:
                answers.append("end of file")
        other.cancel()
        print([*answers, len(ticks) > 3])

    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())
    loop.close()
