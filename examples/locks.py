"""Lock and Condition: state that stays right although tasks take turns while they change it."""

import asyncio


class Account:
    def __init__(self) -> None:
        self.balance = 0
        self.lock = asyncio.Lock()

    async def _add(self, amount: int) -> None:
        balance = self.balance
        await asyncio.sleep(0)  # somebody else's turn, between reading and writing
        self.balance = balance + amount

    async def add_unlocked(self, amount: int) -> None:
        await self._add(amount)

    async def add(self, amount: int) -> None:
        async with self.lock:
            await self._add(amount)


class Stock:
    """Buyers wait until there is enough of it."""

    def __init__(self) -> None:
        self.pieces = 0
        self.changed = asyncio.Condition()

    async def deliver(self, pieces: int) -> None:
        async with self.changed:
            self.pieces += pieces
            print(f"delivered {pieces}, in stock {self.pieces}")
            self.changed.notify_all()

    async def buy(self, who: str, pieces: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.pieces >= pieces)
            self.pieces -= pieces
            print(f"{who} took {pieces}, in stock {self.pieces}")


async def main() -> None:
    account = Account()
    await asyncio.gather(*(account.add_unlocked(1) for _ in range(100)))
    print("a hundred times one, without a lock:", account.balance)

    account = Account()
    await asyncio.gather(*(account.add(1) for _ in range(100)))
    print("a hundred times one, with a lock:", account.balance)

    stock = Stock()
    async with asyncio.TaskGroup() as group:
        group.create_task(stock.buy("ann", 5))
        group.create_task(stock.buy("bob", 2))
        await asyncio.sleep(0)
        await stock.deliver(3)
        await asyncio.sleep(0.01)
        await stock.deliver(4)


if __name__ == "__main__":
    asyncio.run(main())
