"""What the Python clients have in common: the relay they are told to use, and the line in which they report."""

import argparse
import asyncio
import json
import sys

# An upper bound for a broken relay on a loaded machine, not a pace.
PATIENCE = 60


def arguments(description):
    """The relay and how much to send, from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--transport", choices=["udp", "tcp", "tls"], required=True)
    parser.add_argument("--username", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--messages", type=int, default=100, help="how many go each way")
    return parser.parse_args()


def payload(number):
    """A message that no other one equals, of a length that is not always a multiple of four."""
    return f"message {number} ".encode() + bytes(number % 256 for _ in range(number % 7))


def report(main):
    """Runs `main` and prints what it returns as one line of JSON; a failure is a traceback and status 1."""
    result = asyncio.run(asyncio.wait_for(main, PATIENCE))
    json.dump(result, sys.stdout)
    print(flush=True)
