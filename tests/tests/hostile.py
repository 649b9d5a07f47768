# A client's borg that is none: speaks the protocol, and then does what the test asked for (the first line of the file `deed`
# beside it). Runs under the Python of a real borg, for its msgpack.
import os, shlex, subprocess, sys

if "--version" in sys.argv:
    print("borg 1.4.5")
    sys.exit(0)

from borg.helpers import msgpack

deed, foreign = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "deed")).read().split()
path = os.environ["BORG_REPO"].split("borgcube-ssh@localhost")[1].encode()
child = subprocess.Popen(shlex.split(os.environ["BORG_RSH"]) + ["host", "borg", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
unpacker = msgpack.Unpacker(raw=True)
number = 1


def answer():
    while True:
        for message in unpacker:
            return message
        data = os.read(child.stdout.fileno(), 65536)
        if not data:
            sys.exit("the server hung up")
        unpacker.feed(data)


def send(data):
    child.stdin.write(data)
    child.stdin.flush()


def call(method, **arguments):
    global number
    number += 1
    send(msgpack.packb({"i": number, "m": method, "a": arguments}))
    reply = answer()
    if b"exception_class" in reply:
        sys.stderr.write(b" ".join(reply.get(b"exception_short", [])).decode() + "\n")
        sys.exit(2)
    return reply[b"r"]


send(msgpack.packb([1, 1, "negotiate", [{"client_version": (1, 4, 5, -1)}]]))
answer()
if deed == "other-token":
    path = b"/./" + b"0" * 64
call("open", path=path, create=False, lock_wait=1, lock=True, exclusive=True, append_only=False, make_parent_dirs=False)
if deed == "list":
    call("list", limit=1000, marker=None)
elif deed == "read":
    call("get", id=bytes.fromhex(foreign))
elif deed == "wrong-id":
    call("put", id=bytes.fromhex(foreign), data=b"\x07\x00\x00something else")
elif deed == "delete":
    call("delete", id=bytes.fromhex(foreign))
elif deed == "destroy":
    call("destroy")
elif deed == "bomb":
    send(b"\xdb\xff\xff\xff\xff")
    answer()
elif deed == "commit":
    call("commit", save_space=False, compact=True, threshold=0.1, cleanup_commits=False)
sys.exit("the deed was not punished: " + deed)
