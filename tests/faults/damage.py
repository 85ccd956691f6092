"""Lives that begin in a state directory which a killed daemon has left and somebody or something has damaged."""
import os
import pathlib
import random
import shutil
import socket

import life


def half(path, text, chance):
    path.write_bytes(text[:chance.randrange(len(text) + 1)])


def bits(path, text, chance):
    text = bytearray(text)
    for _ in range(8 if text else 0):
        text[chance.randrange(len(text))] ^= 1 << chance.randrange(8)
    path.write_bytes(text)


def twice(path, text, _):
    path.write_bytes(text + text)


def noise(path, _, chance):
    path.write_bytes(chance.randbytes(100_000))


def huge(path, text, _):
    path.write_bytes(text)
    os.truncate(path, 20 << 30)


def gone(path, *_):
    path.unlink()


def directory(path, *_):
    path.unlink()
    path.mkdir()


def fifo(path, *_):
    path.unlink()
    os.mkfifo(path)


def link(path, *_):
    path.unlink()
    path.symlink_to("/dev/zero")


def unix_socket(path, *_):
    path.unlink()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


WAYS = [half, half, bits, bits, twice, noise, huge, gone, directory, fifo, link, unix_socket]


class Damaged(life.Life):
    """`fault`: the word "damaged", a name in the state directory, and which of the ways."""

    def first(self):
        self.start()
        self.until("every program is up in the life before", self.all_well)
        self.daemon.kill()
        self.daemon.wait()
        _, name, way = self.fault
        path = self.directory / "state" / name
        if not path.is_file():
            return "survived without that file"
        WAYS[int(way)](path, path.read_bytes(), random.Random(int(way)))
        self.before = {replica: self.begun(replica) for replica in life.REPLICAS}
        self.start()
        try:
            self.until("every program is up", self.all_well)
            self.until("the books agree", self.books_agree)
        except life.Ended as early:
            if self.ended() not in (1, 2) or str(path) not in self.output().read_text():
                raise life.Broken(f"it ended before {early}, and not for the file: {self.said()!r}") from None
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            return f"refused: {self.said()}"
        return self.stop()

    def report(self):
        return 1, ""


def names(binary, tools):
    """The files that a state directory has."""
    one = life.Life(binary, tools, None)
    try:
        one.start()
        one.until("every program is up", one.all_well)
        one.until("there is a state", lambda: list((one.directory / "state").glob("*.*")))
        one.daemon.kill()
        one.daemon.wait()
        return sorted(path.name for path in pathlib.Path(one.directory / "state").iterdir() if path.is_file())
    finally:
        one.clean_up()
