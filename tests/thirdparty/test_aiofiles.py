"""aiofiles: its threads finish what they do, in order, also when the caller gives up."""

import asyncio

import aiofiles
import aiofiles.os
import aiofiles.tempfile
import pytest


def test_files(run, tmp_path):
    async def main():
        paths = [tmp_path / str(n) for n in range(20)]

        async def write_and_read(path):
            async with aiofiles.open(path, "w") as file:
                for n in range(100):
                    await file.write(f"{path.name} {n}\n")
            async with aiofiles.open(path) as file:
                return [line async for line in file]

        for path, lines in zip(
            paths, await asyncio.gather(*map(write_and_read, paths)), strict=True
        ):
            assert lines == [f"{path.name} {n}\n" for n in range(100)]

        async with aiofiles.open(paths[0], "r+b") as file:
            await file.seek(0, 2)
            await file.write(bytes(3_000_000))
            await file.seek(4)
            assert await file.read(3) == b"0 1"
            await file.truncate(10)
        assert (await aiofiles.os.stat(paths[0])).st_size == 10
        assert await aiofiles.os.path.exists(paths[1])
        await aiofiles.os.remove(paths[1])
        with pytest.raises(FileNotFoundError):
            await aiofiles.open(paths[1])
        async with aiofiles.tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            async with aiofiles.tempfile.NamedTemporaryFile(dir=folder) as file:
                await file.write(b"something")
                await file.flush()
                assert await aiofiles.os.listdir(folder)
        assert not await aiofiles.os.path.exists(folder)

    run(main())


def test_cancelled(run, tmp_path):
    async def main():
        for round_ in range(20):
            async with aiofiles.open(tmp_path / "file", "wb") as file:
                task = asyncio.create_task(file.write(bytes(1_000_000)))
                if round_:
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()

    run(main())
