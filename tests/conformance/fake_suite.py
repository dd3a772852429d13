"""Test classes that pass, fail, hang and crash, for the tests of the runner itself."""

import asyncio
import os
import signal
import sys
import threading
import time
import unittest


class Mixed(unittest.TestCase):
    def test_1_pass(self):
        asyncio.run(asyncio.sleep(0))

    def test_2_crash(self):
        print("on the way down", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)

    def test_3_skip(self):
        self.skipTest("not today")

    def test_4_hang(self):
        time.sleep(600)

    def test_5_fail(self):
        self.assertEqual(1, 2)

    def test_6_subtests(self):
        for i in range(3):
            with self.subTest(i=i):
                self.assertNotEqual(i, 1)

    def test_7_unraisable(self):
        class Bad:
            def __del__(self):
                raise ValueError("from a finalizer")
        Bad()

    def test_8_thread(self):
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()

    def test_9_exit(self):
        os._exit(7)


class Interrupted(unittest.TestCase):
    def test_a(self):
        with self.assertRaises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)


class BadFixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError("no fixture")

    def test_a(self):
        pass

    def test_b(self):
        pass


@unittest.skip("all of it")
class Skipped(unittest.TestCase):
    def test_a(self):
        pass


class BadExit(unittest.TestCase):
    def test_a(self):
        import atexit
        atexit.register(lambda: (sys.stdout.flush(), os._exit(3)))
