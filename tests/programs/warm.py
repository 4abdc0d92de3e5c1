"""Stands for the interpreter: a warm one runs the program in a fork, and this process is its shadow.

It hands its arguments, variables, folder and open files over, passes signals on, and ends as the fork does.
"""

import json
import os
import signal
import socket
import sys

PASSED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    opened: list[int] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:  # the descriptor of the listing itself
            continue
        opened.append(int(name))
    warm = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    warm.connect(f"{os.path.dirname(os.path.abspath(sys.argv[0]))}/socket")
    for number in PASSED:
        signal.signal(number, lambda number, _frame: warm.send(bytes([number])) and None)
    task = {"argv": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd(), "opened": opened}
    socket.send_fds(warm, [json.dumps(task).encode()], opened)
    status = int(warm.recv(16) or -signal.SIGKILL)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


main()
