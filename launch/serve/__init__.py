"""A small page on this machine: drop a photograph, see it coloured, by one run or by several side by side.

python -m launch.serve --run runs/first --run runs/second
"""

from __future__ import annotations

import argparse
import importlib.util
import socket
from collections.abc import Sequence

from colortrain.inference.colorizer import Colorizer
from launch.cli import CommandParser, at_least_one, at_least_zero
from launch.network_options import add_network_arguments, load_networks
from shards.errors import UserError

_EXAMPLE = """\
Photographs are coloured in memory: none is written anywhere, none leaves this machine. Ctrl-C ends it.
example: two runs side by side, then open the address that is printed
  python -m launch.serve --run runs/first --run runs/second
"""
_NEEDED = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
LOOPBACK = ("127.0.0.1", "localhost")


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser(
        "launch.serve", "A page on this machine that colours photographs.", _EXAMPLE
    )
    add_network_arguments(words)
    words.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; default 127.0.0.1, this machine alone",
    )
    words.add_argument(
        "--port", type=at_least_zero, default=8765, help="default 8765; 0: any that is free"
    )
    words.add_argument(
        "--max-mb",
        type=at_least_one,
        default=30,
        metavar="N",
        help="refuse larger files; default 30",
    )
    words.add_argument(
        "--max-megapixels",
        type=at_least_one,
        default=50,
        metavar="N",
        help="refuse larger pictures; default 50",
    )
    return words


def listen(host: str, port: int) -> socket.socket:
    """A socket at that address; raises `UserError` if it is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # who reads the address may come at once, and waits
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen at {host}:{port} ({reason}): choose another --port or --host"
        ) from None
    return listening


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit status."""
    arguments = parser().parse_args(argv)
    missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"the page needs {', '.join(missing)}: pip install 'colortrain[serve]'")
    networks = load_networks(arguments)
    with listen(arguments.host, arguments.port) as listening:
        _serve(listening, networks, arguments)
    return 0


def _serve(
    listening: socket.socket, networks: dict[str, Colorizer], arguments: argparse.Namespace
) -> None:
    import uvicorn

    from launch.serve.app import Limits, make_app

    host, port = listening.getsockname()[:2]
    here = arguments.host in LOOPBACK
    limits = Limits(bytes=arguments.max_mb << 20, pixels=arguments.max_megapixels * 1_000_000)
    app = make_app(networks, limits, hosts=LOOPBACK if here else ("*",))
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}  (Ctrl-C ends it)", flush=True)
    if not here:
        print(
            f"anyone who reaches {host} can use it: there are no passwords and no encryption",
            flush=True,
        )
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=64, server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises it again once all is closed
        print("ended")
