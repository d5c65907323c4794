"""What staff may send, checked at the door: strict types, bounded texts, no field that we do not know."""

from __future__ import annotations

from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from sanic.exceptions import PayloadTooLarge

from admin.requests import StaffRequest
from core.decision_kinds import DOCUMENT_LENGTH_MAX, NUMBER_LENGTH_MAX, DecisionKind
from core.errors import InvalidRequest
from core.money import AMOUNT_FEN_MAX

BODY_BYTES_MAX = 128 << 10
PARTS_MAX = 20
ITEMS_MAX = 200
FIELD_NAME_LENGTH_MAX = 64

# No U+0000: PostgreSQL cannot hold it. A document has lines, a reason has none.
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
Document = Annotated[str, StringConstraints(min_length=1, max_length=DOCUMENT_LENGTH_MAX, pattern=r"^[^\x00]*$")]
Number = Annotated[str, StringConstraints(min_length=1, max_length=NUMBER_LENGTH_MAX, pattern=r"^[^\x00-\x1f\x7f]*$")]
ItemId = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Body(BaseModel):
    """A JSON object in which every field is known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ReasonBody(Body):
    """Why."""

    reason: Reason


class ProposeBody(Body):
    """What one person wants decided: `number` is the order's, the confirmation's or the refund's."""

    kind: DecisionKind
    number: Number
    reason: Reason
    document: Document
    amount_fen: Annotated[int, Field(ge=1, le=AMOUNT_FEN_MAX)] | None = None
    their_number: Annotated[str, StringConstraints(max_length=NUMBER_LENGTH_MAX, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    at: AwareDatetime | None = None
    case_id: UUID | None = None


class RefundPartBody(Body):
    """A line, how much of it (nothing said: all that may go back), and which of the HIS's items."""

    line_id: UUID
    amount_fen: Annotated[int, Field(ge=1, le=AMOUNT_FEN_MAX)] | None = None
    his_items: Annotated[list[ItemId], Field(max_length=ITEMS_MAX)] = []


class RefundBody(Body):
    """What is to go back, and why."""

    parts: Annotated[list[RefundPartBody], Field(min_length=1, max_length=PARTS_MAX)]
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Empty(Body):
    """A request that says everything in its path."""


BodyType = TypeVar("BodyType", bound=Body)

BODIES: tuple[type[Body], ...] = (ReasonBody, ProposeBody, RefundBody)


def read(kind: type[BodyType], request: StaffRequest) -> BodyType:
    """The request's body. Raises InvalidRequest that names the first field which is wrong, and never its value."""
    if len(request.body) > BODY_BYTES_MAX:
        raise PayloadTooLarge("too large")
    content_type = str(request.headers.get("content-type", "")).partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise InvalidRequest(field="Content-Type", problem="must be application/json")
    try:
        return kind.model_validate_json(request.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])[:FIELD_NAME_LENGTH_MAX] or "body"
        problem = "is missing" if first["type"] == "missing" else "has the wrong form"
        raise InvalidRequest(field=name if name.isprintable() else "body", problem=problem) from None


def read_empty(request: StaffRequest) -> None:
    """Nothing, or an empty object."""
    if request.body:
        read(Empty, request)
