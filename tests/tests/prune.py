"""Stock borg in one process: a start for each archive would cost half a second.

Reads a JSON document from standard input and writes one to standard output:
{"repository": PATH, "archives": [[NAME, TIMESTAMP], ...], "prunes": [{"zone": TZ, "arguments": [...]}, ...]}
-> {"prunes": [[LINE, ...], ...]}: what `borg prune --dry-run --list` says of each archive.
"""

import json
import logging
import os
import sys
import time

from borg import helpers
from borg.archiver import Archiver


class Lines(logging.Handler):
    def __init__(self):
        super().__init__(logging.INFO)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def borg(*arguments):
    archiver = Archiver()
    archiver.prerun_checks = lambda *_: None
    if hasattr(helpers, "exit_code"):
        helpers.exit_code = 0
    code = archiver.run(archiver.parse_args(list(arguments)))
    if code != 0:
        raise SystemExit(f"borg {arguments}: exit code {code}")


def main():
    work = json.load(sys.stdin)
    repository = work["repository"]
    if work["archives"]:
        borg("init", "--encryption=none", repository)
    for name, timestamp in work["archives"]:
        borg("create", "--timestamp", timestamp, f"{repository}::{name}", os.path.devnull)
    heard = Lines()
    output = logging.getLogger("borg.output.list")
    done = []
    for prune in work["prunes"]:
        os.environ["TZ"] = prune["zone"]
        time.tzset()
        heard.lines = []
        output.addHandler(heard)
        borg("prune", "--dry-run", "--list", *prune["arguments"], repository)
        output.removeHandler(heard)
        done.append(heard.lines)
    json.dump({"prunes": done}, sys.stdout)


main()
