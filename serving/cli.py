"""Serve an artifact over HTTP, in TF Serving's format and with decoded answers.

    python -m serving artifacts/reviews [--runtime tflite --variant int8] [--port 8501]
    python -m serving tf-serving artifacts/reviews --out deploy
    python -m serving web artifacts/reviews --out site
"""

import argparse
import json
import logging
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tf_pipeline import command
from tf_pipeline.artifact import Manifest
from tf_pipeline.config import add_flags, from_flags
from tf_pipeline.errors import USER_ERROR_EXIT, UserError

from .options import DeployOptions, Limits, Queueing, ServeOptions, WebOptions

if TYPE_CHECKING:
    from tf_pipeline.predictor import Predictor

log = logging.getLogger(__name__)

INTERRUPTED_EXIT = 130  # what a shell reports after Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Not subcommands of argparse: an artifact stands in their place otherwise.
    if words and words[0] in VERBS:
        return command.run(VERBS[words[0]](), words[1:])
    flags = _parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        serve(flags.artifact, from_flags(ServeOptions, flags), from_flags(Limits, flags),
              from_flags(Queueing, flags))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_EXIT
    except ModuleNotFoundError as error:
        print(f"error: The module {error.name!r} is not installed. Run: pip install -r "
              "serving/requirements.txt (and --runtime saved_model needs tensorflow and "
              "tensorflow-text).", file=sys.stderr)
        return USER_ERROR_EXIT
    except KeyboardInterrupt:  # while the model was loading
        return INTERRUPTED_EXIT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m serving", description="Serve an artifact over HTTP: TF Serving's "
        ":predict, and :answer with decoded answers.",
        epilog="`python -m serving tf-serving --help`: write a folder that TF Serving starts from. "
        "`python -m serving web --help`: write a static site whose page runs the model itself.")
    parser.add_argument("artifact", type=Path, help="folder that `python -m export convert` wrote")
    add_flags(parser, ServeOptions)
    add_flags(parser.add_argument_group("limits of one request"), Limits)
    add_flags(parser.add_argument_group("waiting"), Queueing)
    return parser


def _deploy_parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m serving tf-serving", description="Write a folder that TF Serving starts "
        "from: models by version, their configuration, and files for Docker and Kubernetes.")
    parser.add_argument("artifacts", type=Path, nargs="+",
                        help="folders that `python -m export convert` wrote, with a SavedModel")
    add_flags(parser, DeployOptions)
    parser.set_defaults(command=_deploy)
    return parser


def _deploy(flags: argparse.Namespace) -> None:
    from .deploy import deploy

    options = from_flags(DeployOptions, flags)
    deploy(flags.artifacts, options)
    print(f"Wrote {options.out}. To start it: cd {options.out} && docker compose up")


def _web_parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m serving web", description="Write an artifact as a static site: pages that "
        "run the model in the browser, for any web server.")
    parser.add_argument("artifact", type=Path, help="folder that `python -m export convert` wrote")
    add_flags(parser, WebOptions)
    parser.set_defaults(command=_web)
    return parser


def _web(flags: argparse.Namespace) -> None:
    from . import static_site

    _refuse_run(flags.artifact)
    out = static_site.write(flags.artifact, from_flags(WebOptions, flags))
    megabytes = sum(path.stat().st_size for path in out.rglob("*")) / 1e6
    log.info("Wrote %s, %.1f MB of static files. To look at it: python -m http.server --bind "
             "127.0.0.1 --directory %s - then open http://127.0.0.1:8000/", out, megabytes,
             shlex.quote(str(out)))


VERBS = {"tf-serving": _deploy_parser, "web": _web_parser}


def _refuse_run(artifact: Path) -> None:
    if (artifact / "run.json").exists() and not (artifact / "manifest.json").exists():
        raise UserError(f"{artifact} is a run, and only artifacts are served. Convert it first: "
                        f"python -m export convert {artifact} --out artifacts/{artifact.name}")


def serve(artifact: Path, options: ServeOptions, limits: Limits, queueing: Queueing) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish the requests under way and return."""
    _refuse_run(artifact)
    # First the port, which fails at once, then the model, which may take seconds to load.
    with _bind(options) as listener:
        import uvicorn

        from tf_pipeline.predictor import Predictor

        from .graphs import refuse_weights
        from .server import create_app

        refuse_weights(artifact, Manifest.load(artifact).choose(options.runtime, options.variant,
                                                                options.length))
        predictor = Predictor(artifact, options.runtime, options.variant, options.length,
                              options.threads)
        app = create_app(predictor, limits, options.threads, queueing)
        predictor.warm_up()
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="warning",
                                               access_log=False, timeout_graceful_shutdown=10))

        def stop(number: int, frame: Any) -> None:
            server.should_exit = True

        # uvicorn takes the signals over, shuts down, and then raises them again for whoever had
        # them before: without a handler here that would end the process with an error.
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        try:
            listener.listen(128)
        except OSError as error:
            raise _cannot_listen(options, error) from None
        log.info("%s", _invitation(predictor, listener))
        server.run(sockets=[listener])


def _bind(options: ServeOptions) -> socket.socket:
    """Take the address without answering at it yet."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A server that was just stopped leaves its port blocked for a minute otherwise.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:  # an unknown host name too
        raise _cannot_listen(options, error) from None
    return listener


def _cannot_listen(options: ServeOptions, error: OSError) -> UserError:
    return UserError(f"Cannot listen at {options.host} port {options.port}: {error.strerror}. "
                     "Stop what listens there, or pass another --port (0: any free one) or "
                     "--host.")


def _invitation(predictor: "Predictor", listener: socket.socket) -> str:
    """Name the file, the address and a line to paste into a shell."""
    from .signatures import takes_text

    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    assert predictor.manifest is not None
    model = f"{url}/v1/models/{quote(predictor.manifest.name, safe='')}"
    example = dict(zip(predictor.task.text_fields, ("a text", "another"), strict=False))
    texts = [list(example.values())] if len(example) > 1 else ["a text"]
    verb, body = (("predict", {"instances": [example] if len(example) > 1 else texts})
                  if takes_text(predictor) else ("answer", {"texts": texts}))
    what = f"{model}:{verb} -d '{json.dumps(body)}'"
    return f"Serving {predictor.name} at {url} - try: curl {what}"
