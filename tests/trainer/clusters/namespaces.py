"""Hosts as network namespaces of this machine, each with an address of its own, on one bridge."""

import os
import shutil
import subprocess
from pathlib import Path

NETWORK = "10.213.77"
POD = "digits-{}.workers"  # the name by which the hosts know each other, as pods do


def missing():
    """Why there can be none here; empty where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "not installed: ip (Debian: iproute2)"
    name = f"termwise{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "this machine lets no one make network namespaces"
    _ip("netns", "delete", name)
    return ""


class Namespaces:
    """Hosts that there are while it is open.

    Args:
      count: int, how many.
    Attributes:
      addresses: the addresses of the hosts, without ports.
    """

    def __init__(self, count):
        self.addresses = [f"{NETWORK}.{10 + index}" for index in range(count)]
        self._names = [f"termwise{os.getpid()}-{index}" for index in range(count)]
        self._bridge = f"tw{os.getpid()}"

    def __enter__(self):
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("link", "set", self._bridge, "up")
            for index, name in enumerate(self._names):
                self._add(index, name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _cable(self, index):
        """The device on the bridge that leads to a host."""
        return f"{self._bridge}c{index}"

    def _add(self, index, name):
        cable = self._cable(index)
        _ip("netns", "add", name)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", cable, "master", self._bridge, "up")
        _ip("-n", name, "address", "add", f"{self.addresses[index]}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        hosts = [f"{address} {POD.format(i)}" for i, address in enumerate(self.addresses)]
        folder = Path("/etc/netns") / name  # what is there takes the place of /etc/hosts
        folder.mkdir(parents=True)
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))

    def inside(self, index, command):
        """The command that runs another one on a host."""
        return ["ip", "netns", "exec", self._names[index], *command]

    def __exit__(self, *_):
        for index, name in enumerate(self._names):
            # with a namespace alone it would go some time later, and its name be taken until then
            subprocess.run(["ip", "link", "delete", self._cable(index)], capture_output=True)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
        subprocess.run(["ip", "link", "delete", self._bridge], capture_output=True)


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
