"""PredictionService: Predict and GetModelMetadata; the other methods answer as TF Serving does."""

from collections.abc import Mapping
from typing import Any

import grpc

from tf_pipeline.errors import UserError

from .. import tf_serving
from ..bodies import show
from ..catalogue import Catalogue
from ..options import Limits
from ..service import Service
from ..tf_serving import Signature
from . import messages, tensors
from .status import Refusal

SIGNATURES = "signature_def"  # the one metadata field that TF Serving knows
ANY_PREFIX = "type.googleapis.com/"
METHODS = {f"tensorflow/serving/{verb}": verb for verb in tf_serving.OTHER_VERBS}


def find(catalogue: Catalogue, spec: Any) -> Service:
    """Give the version that a ModelSpec asks for; raises NotFound."""
    if not spec.name:
        raise UserError("ModelSpec has no name specified; the request's model_spec is "
                        f"{show(str(spec).strip())}. Name a model.")
    choice = spec.WhichOneof("version_choice")
    return catalogue.find(spec.name, spec.version.value if choice == "version" else None,
                          spec.version_label if choice == "version_label" else None)


class Prediction:
    """The methods of tensorflow.serving.PredictionService."""

    def __init__(self, catalogue: Catalogue, limits: Limits):
        self.catalogue, self.limits = catalogue, limits

    async def predict(self, request: Any, deadline: float | None) -> Any:
        """Run a signature; `output_filter` picks outputs and their order."""
        served = find(self.catalogue, request.model_spec)
        name = request.model_spec.signature_name or tf_serving.DEFAULT_SIGNATURE
        signature = served.signatures.get(name)
        if signature is None:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION,
                          f"Serving signature key {show(name)} not found. Known: "
                          f"{', '.join(served.signatures)}.")
        wanted = _wanted(request.output_filter, signature)
        inputs = self._inputs(request.inputs, signature)
        # Nothing is awaited between finding a version and asking it: it may be retired meanwhile.
        outputs = await served.predict(tf_serving.PredictRequest(name, False, inputs), deadline)
        response = messages.PredictResponse()
        _write_spec(response.model_spec, served)
        response.model_spec.signature_name = name
        for output in wanted:
            tensors.encode(outputs[output], signature.outputs[output].dtype,
                           response.outputs[output])
        return response

    def _inputs(self, given: Mapping[str, Any], signature: Signature) -> dict[str, list[Any]]:
        takes = signature.inputs
        if set(given) != set(takes):
            raise UserError(
                f"input size does not match signature: {len(given)}!={len(takes)} "
                f"len({_set(given)}) != len({_set(takes)}). Sent extra: "
                f"{_set(set(given) - set(takes))}. Missing but required: "
                f"{_set(set(takes) - set(given))}.")
        inputs = {name: tensors.decode(given[name], tensor, f"inputs.{name}", self.limits)
                  for name, tensor in takes.items()}
        sizes = {name: len(rows) for name, rows in inputs.items()}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise UserError(f"The inputs have different numbers of rows: {shown}.")
        return inputs

    async def metadata(self, request: Any, deadline: float | None) -> Any:
        """Give the signatures of a version."""
        if not request.metadata_field:
            raise UserError("GetModelMetadataRequest must specify at least one metadata_field, and "
                            f"has 0. Add {SIGNATURES!r}.")
        for field in request.metadata_field:
            if field != SIGNATURES:
                raise UserError(f"Metadata field {show(field)} is not supported. Ask for "
                                f"{SIGNATURES!r}.")
        served = find(self.catalogue, request.model_spec)
        listed = messages.SignatureDefMap()
        for name, signature in served.signatures.items():
            entry = listed.signature_def[name]
            entry.method_name = signature.method
            for group, infos in ((signature.inputs, entry.inputs),
                                 (signature.outputs, entry.outputs)):
                for key, tensor in group.items():
                    tensors.describe(tensor, infos[key])
        response = messages.GetModelMetadataResponse()
        _write_spec(response.model_spec, served)
        packed = response.metadata[SIGNATURES]
        packed.type_url = ANY_PREFIX + listed.DESCRIPTOR.full_name
        packed.value = listed.SerializeToString(deterministic=True)
        return response

    async def classify(self, request: Any, deadline: float | None) -> Any:
        """Refuse: no signature is made for it."""
        find(self.catalogue, request.model_spec)
        raise UserError(tf_serving.not_of_kind("classify"))

    async def regress(self, request: Any, deadline: float | None) -> Any:
        """Refuse: no signature is made for it."""
        find(self.catalogue, request.model_spec)
        raise UserError(tf_serving.not_of_kind("regress"))

    async def multi_inference(self, request: Any, deadline: float | None) -> Any:
        """Refuse, as its tasks are those of Classify and Regress."""
        if not request.tasks:
            raise UserError("The request's list of tasks is empty; at least 1 is needed. Use "
                            "Predict.")
        task = request.tasks[0]
        find(self.catalogue, task.model_spec)
        if task.method_name not in METHODS:
            raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "Unsupported signature method_name: "
                          f"{show(task.method_name)}. Use Predict.")
        raise UserError(tf_serving.not_of_kind(METHODS[task.method_name]))


def _write_spec(spec: Any, served: Service) -> None:
    spec.name = served.name
    spec.version.value = served.version


def _set(names: Any) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _wanted(asked: Any, signature: Signature) -> list[str]:
    """Give the outputs to send: those of output_filter, or all."""
    for i, alias in enumerate(asked):
        if alias not in signature.outputs:
            raise UserError(f"output tensor alias not found in signature: {show(alias)} Outputs "
                            f"expected to be in the set {_set(signature.outputs)}.")
        if alias in asked[:i]:
            raise UserError(f"duplicate output tensor alias: {show(alias)}. Name it once.")
    return list(asked) or list(signature.outputs)
