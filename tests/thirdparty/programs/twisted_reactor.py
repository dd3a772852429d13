"""Twisted's reactor over the loop: connections, threads, timers, and processes with and without
a terminal."""

loop = new_event_loop()
asyncio.set_event_loop(loop)
from twisted.internet import asyncioreactor

asyncioreactor.install(loop)
from twisted.internet import defer, endpoints, protocol, reactor, task, threads

told = {}


class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class Client(protocol.Protocol):
    def connectionMade(self):
        self.done, self.text = defer.Deferred(), b""
        self.transport.write(b"x" * 100_000)

    def dataReceived(self, data):
        self.text += data
        if len(self.text) == 100_000:
            self.transport.loseConnection()

    def connectionLost(self, reason):
        self.done.callback(self.text)


class Child(protocol.ProcessProtocol):
    def __init__(self, line):
        self.done, self.line, self.text = defer.Deferred(), line, b""

    def connectionMade(self):
        self.transport.write(self.line)

    def outReceived(self, data):
        self.text += data

    def processEnded(self, reason):
        self.done.callback((self.text, reason.value.exitCode))


def spawn(use_pty):
    child = Child(b"word\n")
    reactor.spawnProcess(
        child, "/bin/sh", ["sh", "-c", "read a; echo got $a; exit 3"], usePTY=use_pty
    )
    return child.done


@defer.inlineCallbacks
def main():
    port = yield endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        protocol.Factory.forProtocol(Echo)
    )
    client = yield endpoints.connectProtocol(
        endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Client()
    )
    text = yield client.done
    told["echo"] = len(text)
    yield port.stopListening()
    told["thread"] = yield threads.deferToThread(lambda: 42)
    yield task.deferLater(reactor, 0.01, lambda: None)
    told["pipes"] = yield spawn(False)
    text, status = yield spawn(True)
    told["terminal"] = text.replace(b"\r\n", b"\n").splitlines()[-1], status
    told["many"] = yield defer.gatherResults([spawn(False) for _ in range(5)])
    told["asyncio"] = yield defer.Deferred.fromFuture(
        asyncio.ensure_future(asyncio.sleep(0.001, "slept"), loop=loop)
    )


def end(result):
    told["failure"] = result
    reactor.stop()


reactor.callWhenRunning(lambda: main().addBoth(end))
reactor.run()
got = b"got word\n", 3
assert told == {
    "echo": 100_000, "thread": 42, "pipes": got, "terminal": (b"got word", 3),
    "many": [got] * 5, "asyncio": "slept", "failure": None,
}, told  # fmt: skip
