"""`python -m hubtune.testing.hub`: serve a Hub until interrupted, and tell a shell how to use it."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import threading
from types import FrameType

from hubtune.testing.hub.refusals import Refusal
from hubtune.testing.hub.server import HOST, LoopbackHub

_ROLES = ("read", "write", "fineGrained")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"'{text}' must be NAME=VALUE")
    return name, value


def _token(text: str) -> tuple[str, str, str]:
    user, rest = _pair(text)
    value, colon, role = rest.rpartition(":")
    if not (colon and value) or role not in _ROLES:
        raise argparse.ArgumentTypeError(f"'{text}' must be NAME=VALUE:ROLE, where ROLE is one of {', '.join(_ROLES)}")
    return user, value, role


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hubtune.testing.hub", description=f"A Hub on {HOST}.")
    parser.add_argument("--root", required=True, help="the folder that holds the repos; made if need be")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--xet", action="store_true", help="send and fetch large files by Xet instead of LFS")
    parser.add_argument("--model", type=_pair, action="append", default=[], metavar="REPO=FOLDER")
    parser.add_argument("--dataset", type=_pair, action="append", default=[], metavar="REPO=FOLDER")
    parser.add_argument("--token", type=_token, action="append", default=[], metavar="NAME=VALUE:ROLE")
    return parser.parse_args(argv)


def _prepared(args: argparse.Namespace) -> tuple[LoopbackHub, str]:
    """The Hub with everything the arguments put on it, and the token to tell the shell."""
    writers = [(user, value) for user, value, role in args.token if role == "write"]
    hub = LoopbackHub(args.root, port=args.port, user=writers[0][0] if writers else "tester", xet=args.xet)
    for user, value, role in args.token:
        # A fineGrained token from here covers its user's own name; narrower ones are made in Python.
        hub.add_token(user, role, value=value, scope=(user,) if role == "fineGrained" else ())
    for repo_id, folder in args.model:
        hub.add_model(repo_id, folder)
    for repo_id, folder in args.dataset:
        hub.add_dataset(repo_id, folder)
    return hub, writers[0][1] if writers else hub.token


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    args = _arguments(argv)
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        print("The Hub on loopback needs starlette and uvicorn: pip install 'hubtune[testing]'", file=sys.stderr)
        return 1
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    # Before the server starts: whoever reads the lines below may signal at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        hub, token = _prepared(args)
        hub.start()
    except (OSError, RuntimeError, Refusal) as error:
        print(f"The Hub cannot start: {error}", file=sys.stderr)
        return 1
    print(
        f"export HF_ENDPOINT={hub.endpoint}",
        f"export HF_HUB_DISABLE_XET={hub.env()['HF_HUB_DISABLE_XET']}",
        f"export HF_TOKEN={token}",
        sep="\n",
        flush=True,
    )
    stopped.wait()
    hub.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
