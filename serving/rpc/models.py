"""ModelService: which versions of a model there are, and in what state."""

from typing import Any

from tf_pipeline.errors import UserError

from ..catalogue import Catalogue, Reload
from . import messages
from .prediction import find

OK, UNKNOWN = 0, 2  # of tensorflow.error.Code


class Models:
    """The methods of tensorflow.serving.ModelService."""

    def __init__(self, catalogue: Catalogue, reload: Reload):
        self.catalogue, self._reload = catalogue, reload

    async def status(self, request: Any, deadline: float | None) -> Any:
        """Give the state of all versions, or of the one that is asked for."""
        if not request.HasField("model_spec"):
            raise UserError("Missing ModelSpec: the request is empty. Name a model.")
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        if spec.version_label:
            version = find(self.catalogue, spec).version
        response = messages.GetModelStatusResponse()
        for found in self.catalogue.statuses(spec.name, version):
            entry = response.model_version_status.add(
                version=found.number, state=messages.State.values_by_name[found.state].number)
            # Also where all is well: clients expect it to be there.
            entry.status.error_code = UNKNOWN if found.error else OK
            entry.status.error_message = found.error
        return response

    async def reload(self, request: Any, deadline: float | None) -> Any:
        """Look at the folder of models now; answers when what is new there has been loaded.

        Which models there are is for the folder to say: a request that says it is refused.
        """
        if request.ByteSize():
            raise UserError(f"The request holds a configuration of {request.ByteSize()} bytes, and "
                            "this server takes none over the network. Change the folder of models "
                            "with `python -m serving add`, `rollback` or `label`, and send the "
                            "request without one.")
        await self._reload()
        response = messages.ReloadConfigResponse()
        response.status.error_code = OK
        return response
