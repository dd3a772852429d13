"""Files with aiofiles: its threads do the waiting. Worth it for slow or many files, else not."""

import asyncio
import tempfile
from pathlib import Path

import aiofiles
import aiofiles.os


async def write_log(path: Path, lines: int) -> None:
    async with aiofiles.open(path, "w") as file:
        for number in range(lines):
            await file.write(f"{path.stem} line {number}\n")


async def count_lines(path: Path) -> int:
    async with aiofiles.open(path) as file:
        return sum([1 async for _ in file])


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.log") for name in ("north", "south", "west")]
        await asyncio.gather(*(write_log(path, 20 * (n + 1)) for n, path in enumerate(paths)))
        print("lines:", await asyncio.gather(*(count_lines(path) for path in paths)))

        async with aiofiles.open(paths[0], "r+b") as file:
            await file.seek(-8, 2)
            print("the end:", await file.read())
        await aiofiles.os.rename(paths[0], Path(folder, "old.log"))
        print("files:", sorted(await aiofiles.os.listdir(folder)))
        try:
            await count_lines(paths[0])
        except FileNotFoundError as error:
            print("gone:", Path(error.filename).name)


if __name__ == "__main__":
    asyncio.run(main())
