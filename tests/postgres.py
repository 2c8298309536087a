"""A PostgreSQL server of the tests' own, where its programs are installed: started, stopped and thrown away."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

PASSWORD = "s3cr3t-p@ss/word"
"""Of the server's only user, with characters that a URL has to escape."""


def programs():
    """Return the folder with ``initdb`` and ``pg_ctl``, or None."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "pg_ctl").exists()), None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server with one user, who needs a password, and one database."""

    def __init__(self, folder):
        self.port, self._programs, self._folder = free_port(), programs(), folder
        if os.geteuid() == 0:  # PostgreSQL refuses root
            names = [name for name in ("postgres", "nobody") if any(name == user.pw_name for user in pwd.getpwall())]
            self._user = names[0]
            shutil.chown(folder, self._user)
        else:
            self._user = None
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        if self._user:
            shutil.chown(secret, self._user)
        self._run("initdb", "-D", folder / "data", "-U", "tester", "-A", "scram-sha-256", f"--pwfile={secret}", "-N")
        self.start()

    def _run(self, program, *arguments):
        command = [str(self._programs / program), *map(str, arguments)]
        if self._user:
            command = ["runuser", "-u", self._user, "--", *command]
        log = self._folder / "commands"
        with log.open("ab") as output:
            subprocess.run(command, check=True, cwd=self._folder, stdout=output, stderr=output, timeout=60)

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self._folder}"
        data = self._folder / "data"
        self._run("pg_ctl", "-D", data, "-l", self._folder / "log", "-o", options, "-w", "start")

    def stop(self):
        self._run("pg_ctl", "-D", self._folder / "data", "-m", "immediate", "-w", "stop")

    def url(self, password=None):
        """Return the URL of the database, with a password as it is written in one if it is given."""
        secret = "" if password is None else ":" + password.replace("@", "%40").replace("/", "%2F")
        return f"postgresql+psycopg2://tester{secret}@127.0.0.1:{self.port}/postgres"


@contextlib.contextmanager
def running_server():
    """Yield a server that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short, for its socket, and open to its user
    folder.chmod(0o755)
    server = None
    try:
        server = Server(folder)
        yield server
    finally:
        if server is not None:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
        shutil.rmtree(folder, ignore_errors=True)
