#!/usr/bin/env python3
"""What `make test` shows of the booted machines: one Debian 12 server that backs itself up. The rest is in test_server.py."""
import unittest

import rig as rigs
import server as borgcube


class Slice(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.rig = rigs.Rig({"server": {"suite": "bookworm"}})
        cls.enterClassContext(cls.rig)
        cls.server = cls.rig["server"]
        borgcube.install(cls.server)
        borgcube.add_repository(cls.server)
        borgcube.let_in(cls.server, cls.server)
        borgcube.borgcube(cls.server, "client", "add", "server", "--remote", "root@server", "--server", "borgcube-ssh@server")
        borgcube.borgcube(cls.server, "config", "add", "etc", "--client", "server", "--repository", "main", "/etc")

    def test_a_backup_over_ssh_that_stock_borg_can_read(self):
        borgcube.borgcube(self.server, "run", "server/etc", "--wait", "--quiet", timeout=120)
        names = borgcube.stock_borg(self.server, "main", "list --short {path}").out.split()
        self.assertEqual(len(names), 1)
        self.assertTrue(names[0].startswith("server-etc-"), names)
        borgcube.stock_borg(self.server, "main", "check --verify-data {path}")
        self.assertEqual(self.server.sh("ls /run/borgcube/keys").out, "", "job keys are gone")
        self.assertEqual(self.server.sh("systemctl --failed --no-legend").out, "")

    def test_a_schedule_is_a_timer(self):
        borgcube.borgcube(self.server, "schedule", "add", "nightly", "--at", "daily 02:30 UTC", "--run", "server/etc")
        self.server.wait_for("systemctl list-timers --all --no-legend | grep -q borgcube-schedule@nightly.timer")
        self.assertIn("02:30:00 UTC", self.server.sh("TZ=UTC systemctl list-timers --all --no-legend borgcube-schedule@nightly.timer").out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
