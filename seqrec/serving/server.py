"""Listening for requests."""

import logging
import socket
from pathlib import Path

import uvicorn

from seqrec.basics.errors import UserError
from seqrec.serving.app import make_app
from seqrec.serving.options import ServiceOptions
from seqrec.serving.service import Service

log = logging.getLogger(__name__)


def serve(folders: list[Path], host: str, port: int, options: ServiceOptions) -> None:
    """Open the models and answer until the process is stopped.

    Raises:
        UserError: If a model cannot be opened, or the address is taken.
    """
    app = make_app(Service(folders, options))
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise UserError(f"--host {host} --port {port} can't be listened on: {error.strerror or error}") from error
    listening.listen(2048)
    address, taken = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    log.info("serving on http://%s:%d (the page; /docs lists the requests). Ctrl-C stops it", shown, taken)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
    uvicorn.Server(config).run([listening])
