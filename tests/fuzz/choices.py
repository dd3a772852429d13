"""Decisions from bytes: the same bytes make the same program, fewer make a shorter one."""

import random


class Choices:
    """Takes one byte per decision; when there are no more, every decision is the first."""

    def __init__(self, data):
        self._data = data
        self._next = 0

    def below(self, n):
        """0 <= result < n <= 256"""
        if self._next >= len(self._data):
            return 0
        self._next += 1
        return self._data[self._next - 1] % n

    def one_of(self, options):
        return options[self.below(len(options))]

    def chance(self, percent):
        return self.below(100) >= 100 - percent

    def exhausted(self):
        return self._next >= len(self._data)


def program_bytes(seed, size=400):
    """The bytes of program number `seed`."""
    source = random.Random(seed)
    return source.randbytes(source.randrange(size // 8, size))


def shrink(data, is_bad, attempts=1500):
    """Fewer and smaller bytes for which `is_bad` still holds."""
    left = attempts

    def still_bad(candidate):
        nonlocal left
        left -= 1
        return is_bad(candidate)

    chunk = len(data) // 2
    while chunk and left > 0:
        start = 0
        while start < len(data) and left > 0:
            candidate = data[:start] + data[start + chunk :]
            if still_bad(candidate):
                data = candidate
            else:
                start += chunk
        chunk //= 2
    for i in range(len(data)):
        if data[i] and left > 0:
            candidate = data[:i] + b"\0" + data[i + 1 :]
            if still_bad(candidate):
                data = candidate
    return data
