"""Serve a local web page that colorizes photographs with the networks of runs.

colortrain serve --run runs/first --run runs/second
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import socket
from collections.abc import Sequence

from colortrain.inference.colorizer import Colorizer
from launch.cli import CommandParser, at_least_one, at_least_zero
from launch.network_options import add_network_arguments, load_networks
from shards.errors import UserError

_EXAMPLE = """\
Photographs are colorized in memory: they are not written to disk and do not leave this machine.
Ctrl-C stops the server.

Behind a proxy that removes its prefix from the path (jupyter-server-proxy, /rnode/ of Open
OnDemand), name the host of the address in the browser; that address ends with a slash:
  colortrain serve --run runs/first --allow-host hub.example.org

example: compare two runs; open the printed address in a browser
  colortrain serve --run runs/first --run runs/second
"""
# Module -> package on PyPI.
_REQUIRED = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
LOOPBACK = ("127.0.0.1", "localhost")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser("serve", "Serve a local web page that colorizes photographs.", _EXAMPLE)
    add_network_arguments(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, which only this machine can reach)",
    )
    parser.add_argument(
        "--port",
        type=at_least_zero,
        default=8765,
        help="port to listen on; 0 for any free one (default: 8765)",
    )
    parser.add_argument(
        "--allow-host",
        type=host_and_port,
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="host of the page's address in the browser, where a proxy serves it; repeatable "
        "(default: the page is accepted only at the address that is printed)",
    )
    parser.add_argument(
        "--max-mb",
        type=at_least_one,
        default=30,
        metavar="N",
        help="reject files of more than N MB (default: 30)",
    )
    parser.add_argument(
        "--max-megapixels",
        type=at_least_one,
        default=50,
        metavar="N",
        help="reject images of more than N megapixels (default: 50)",
    )
    return parser


def host_and_port(text: str) -> str:
    """Convert an argument to HOST or HOST:PORT in lower case, as browsers send it.

    Raises argparse.ArgumentTypeError for any other text.
    """
    if not re.fullmatch(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d+)?", text.lower()):
        raise argparse.ArgumentTypeError(
            f"must be a host name, with a port if its address has one, got {text!r}"
        )
    return text.lower()


def host_name(host: str) -> str:
    """Return the HOST of HOST or HOST:PORT."""
    return re.sub(r":\d+$", "", host)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises UserError if the address is in use or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # clients may connect as soon as the address is printed
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host}:{port} ({reason}): choose another --port or --host"
        ) from None
    return listening


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until the user interrupts it, and return the exit status."""
    args = make_parser().parse_args(argv)
    missing = [
        name for module, name in _REQUIRED.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise UserError(
            f"colortrain serve requires {', '.join(missing)}: pip install 'colortrain[serve]'"
        )
    networks = load_networks(args)
    with listen(args.host, args.port) as listening:
        _serve(listening, networks, args)
    return 0


def _serve(
    listening: socket.socket, networks: dict[str, Colorizer], args: argparse.Namespace
) -> None:
    import uvicorn

    from launch.serve.app import Limits, make_app

    host, port = listening.getsockname()[:2]
    is_local = args.host in LOOPBACK
    limits = Limits(bytes=args.max_mb << 20, pixels=args.max_megapixels * 1_000_000)
    hosts = (*LOOPBACK, *map(host_name, args.allow_host)) if is_local else ("*",)
    app = make_app(networks, limits, hosts, origins=args.allow_host)
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}  (Ctrl-C stops it)", flush=True)
    if not is_local:
        print(
            f"warning: anyone who can reach {host} can use this page; it has no passwords and no "
            "encryption",
            flush=True,
        )
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=64, server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises it again after its shutdown
        print("stopped")
