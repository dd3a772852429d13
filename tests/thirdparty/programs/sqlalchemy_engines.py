"""SQLAlchemy's asyncio over psycopg, asyncpg and aiosqlite: greenlets that await."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

URL = sys.argv[1]


class Base(DeclarativeBase):
    pass


class Number(Base):
    __tablename__ = "numbers"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


async def use(url):
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    session = async_sessionmaker(engine, expire_on_commit=False)

    async def add(first):
        async with session() as work, work.begin():
            work.add_all(Number(id=n, text=str(n)) for n in range(first, first + 50))

    for first in range(0, 200, 50) if "sqlite" in url else ():
        await add(first)
    if "sqlite" not in url:
        await asyncio.gather(*(add(first) for first in range(0, 200, 50)))
    async with session() as work:
        assert await work.scalar(select(func.count(Number.id))) == 200
        assert (await work.get(Number, 7)).text == "7"
        rows = await work.stream_scalars(select(Number.id).order_by(Number.id))
        assert [n async for n in rows] == list(range(200))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


async def main():
    await use("sqlite+aiosqlite://")
    for driver in ("psycopg", "asyncpg"):
        await use(URL.replace("postgresql", f"postgresql+{driver}"))


loop = new_event_loop()
loop.run_until_complete(main())
loop.close()
