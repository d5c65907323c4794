"""What the mini program may send, checked at the door: strict types, bounded texts, no field that we do not know."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from core.consents import ConsentKind
from core.errors import InvalidRequest
from core.money import AMOUNT_FEN_MAX
from core.paper import TOKEN_LENGTH_MAX
from core.ports import IdentifierType
from miniprogram_api.requests import ApiRequest

FIELD_NAME_LENGTH_MAX = 64
BILLS_MAX = 50

_PROBLEMS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "json_invalid": "this is not JSON",
}

# No control characters: PostgreSQL cannot hold U+0000, and no name or number has any.
_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
Text = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_PRINTABLE)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_PRINTABLE)]
Branch = Annotated[str, StringConstraints(max_length=32, pattern=_PRINTABLE)]
Code = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+$")]


class Body(BaseModel):
    """A JSON object in which every field is known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SignIn(Body):
    """The one-use code that the app's login gives."""

    institution: Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=_PRINTABLE)]
    app_id: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_PRINTABLE)]
    code: Code


class IdentifierBody(Body):
    type: IdentifierType
    value: Name


class Consent(Body):
    """The version of the privacy notice that was shown, and that it was agreed to."""

    version: Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=_PRINTABLE)]
    agreed: bool


class BindPatient(Body):
    """A person whom the HIS knows, and the code that the phone button gives."""

    name: Name
    identifier: IdentifierBody
    phone_code: Code
    consent: Consent


class BillKey(Body):
    branch: Branch
    bill_id: Text


class StartPaymentBody(Body):
    """Bills to be paid together at the amount that the page showed."""

    patient_id: UUID
    bills: Annotated[list[BillKey], Field(min_length=1, max_length=BILLS_MAX)]
    shown_fen: Annotated[int, Field(ge=0, le=AMOUNT_FEN_MAX * BILLS_MAX)]
    method: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_PRINTABLE)]
    accept_self_paid: bool = False
    despite_open: bool = False


class OpenPaper(Body):
    """One of three: the token, the whole address that a scan gives, or the HIS's own barcode, scanned or typed."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=TOKEN_LENGTH_MAX, pattern=_PRINTABLE)] | None = (
        None
    )
    url: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_PRINTABLE)] | None = None
    code: Text | None = None


class FactorBody(Body):
    """The last four characters of a phone or document that the HIS holds."""

    factor: Annotated[str, StringConstraints(min_length=1, max_length=16, pattern=_PRINTABLE)]


class GiveConsent(Body):
    """The notice that was shown and agreed to. For notices by SMS, the code that the phone button gives."""

    kind: ConsentKind
    version: Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=_PRINTABLE)]
    phone_code: Code | None = None


class Empty(Body):
    """A request that says everything in its path."""


BodyType = TypeVar("BodyType", bound=Body)

BODIES: tuple[type[Body], ...] = (SignIn, BindPatient, StartPaymentBody, OpenPaper, FactorBody, GiveConsent)


def read(kind: type[BodyType], request: ApiRequest) -> BodyType:
    """The request's body. Raises InvalidRequest that names the first field which is wrong, and never its value."""
    content_type = str(request.headers.get("content-type", "")).partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise InvalidRequest(field="Content-Type", problem="must be application/json")
    try:
        return kind.model_validate_json(request.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise InvalidRequest(**_told(first["loc"], first["type"], first["msg"])) from None


def read_empty(request: ApiRequest) -> None:
    """Nothing, or an empty object."""
    if request.body:
        read(Empty, request)


def _told(location: tuple[int | str, ...], kind: str, message: str) -> dict[str, str | int]:
    name = ".".join(str(part) for part in location)[:FIELD_NAME_LENGTH_MAX] or "body"
    told: dict[str, str | int] = {
        "field": name if name.isprintable() else "body",
        "problem": _PROBLEMS.get(kind, "has the wrong form"),
    }
    if kind not in _PROBLEMS:
        told["detail"] = message
    return told


def json_schema(kind: type[Body]) -> dict[str, Any]:
    """For the OpenAPI document."""
    return kind.model_json_schema(ref_template="#/components/schemas/{model}")
