"""The server as a Ray Serve application: `pip install -r serving/requirements-ray.txt`.

    serve run serving.ray_app:app artifact=/shared/artifacts/reviews variant=int8 replicas=4

Each replica is the server of `python -m serving` for one artifact: the same routes, and requests
that wait in it share calls. Ray starts replicas on its nodes, spreads requests over them and puts
others in the place of those that die. Every node needs this package and the artifact, at that path.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ray import serve
from starlette.applications import Starlette

from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor

from .server import create_app

# What a replica may hold at once; more waits in Ray's own queues. Ray's own 5 would leave little
# to put together.
MOST_REQUESTS = 256


@dataclass(frozen=True)
class Settings:
    """What `serve run` takes as KEY=VALUE, or a config file as `args`."""

    artifact: str
    runtime: str | None = None
    variant: str | None = None
    length: int | None = None
    replicas: int = 1
    cores: int = 1  # of each replica

    @classmethod
    def read(cls, given: dict[str, Any]) -> "Settings":
        """Read words or numbers; UserError for what is neither known nor a number."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(given.keys() - set(known)):
            raise UserError(f"Unknown setting {unknown[0]!r}. Known: {', '.join(known)}.")
        if "artifact" not in given:
            raise UserError("The setting artifact is missing: the path of an artifact, the same on "
                            "every node.")
        read: dict[str, Any] = {name: str(value) for name, value in given.items()}
        for name in ("length", "replicas", "cores"):
            if name in read:
                read[name] = _number(name, read[name])
        return cls(**read)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UserError(f"{name} is {text!r}; it must be a whole number above 0.")
    return int(text)


def app(given: dict[str, Any]) -> serve.Application:
    """Build the application. Its deployment is called `bert`."""
    settings = Settings.read(given)

    def replica() -> Starlette:
        predictor = Predictor(Path(settings.artifact), settings.runtime, settings.variant,
                              settings.length, settings.cores)
        predictor.warm_up()
        return create_app(predictor, threads=settings.cores)

    deployment = serve.deployment(
        serve.ingress(replica)(), name="bert", num_replicas=settings.replicas,
        max_ongoing_requests=MOST_REQUESTS, ray_actor_options={"num_cpus": settings.cores},
        health_check_period_s=10)
    return deployment.bind()
