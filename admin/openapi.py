"""The OpenAPI 3.1 document of the staff's API: every route, every code. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from admin.errors import STATUS
from admin.rendering import Json, record_schema, records_in, schema
from admin.schemas import BODIES
from admin.views import RefundBrief
from core.audit import AuditView
from core.case_work import CaseFile, CaseView
from core.decisions import DecisionView
from core.payment_files import PaymentBrief, PaymentFile
from core.refund_parts import RefundOption

VERSION = "1"
TITLE = "诊付 Zhenfu: staff API"
DESCRIPTION = """\
The hospital's staff at work: cases that no rule settles, what takes two people, payments, refunds, and who did what.

`Authorization: Bearer <key>`; `zhenfu staff add` makes a key, and the key says which institution is meant. Sentences \
come in the language of `Accept-Language`. `…_fen` is a whole number of fen, the field beside it is yuan as text. A \
list goes on where `next` says: send it as `after` (`before` for the audit). What moves money by a new row wants an \
`Idempotency-Key`, one per click: the same key with the same request is one row. Deciding the same again by the same \
person only shows it."""

TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "integer"}
OF_THE_SERVER = ("too_many_requests", "request_timeout", "internal_error", "service_unavailable", "took_too_long")
COUNTED = ("not_signed_in", *OF_THE_SERVER)
OF_ROLE = (*COUNTED, "not_allowed")
OF_ONE = (*OF_ROLE, "not_found")
OF_BODY = ("invalid_request", "body_too_large")
OF_HIS = ("hospital_unavailable", "refund_not_possible")
RECORDS = (CaseFile, CaseView, DecisionView, PaymentBrief, PaymentFile, AuditView, RefundBrief, RefundOption)


def _record(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(name: str, kind: Any, *, goes_on: bool = False) -> Json:
    items: Json = {name: {"type": "array", "items": schema(kind)}}
    return _record(**items, **({"next": {"type": ["string", "null"]}} if goes_on else {}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One route, below the API's path."""

    method: str
    path: str
    id: str
    summary: str
    answer: Json
    errors: Sequence[str]
    status: int = 200
    body: str = ""
    query: Sequence[str] = ()
    keyed: bool = False


def _get(path: str, name: str, summary: str, answer: Json, errors: Sequence[str], *query: str) -> Operation:
    return Operation(method="get", path=path, id=name, summary=summary, answer=answer, errors=errors, query=query)


def _post(
    path: str,
    name: str,
    summary: str,
    answer: Json,
    errors: Sequence[str],
    *,
    body: str = "",
    keyed: bool = False,
) -> Operation:
    return Operation(
        method="post",
        path=path,
        id=name,
        summary=summary,
        answer=answer,
        errors=(*errors, *OF_BODY),
        status=201 if keyed else 200,
        body=body,
        keyed=keyed,
    )


_CASE, _DECISION, _REFUND = schema(CaseFile), schema(DecisionView), schema(RefundBrief)
_ACTION = (*OF_ONE, "action_not_possible")
_DECIDE = (*_ACTION, "already_decided", "needs_another")

OPERATIONS: tuple[Operation, ...] = (
    _get("/me", "show_me", "Who calls, and what he may do",
         _record(code=TEXT, roles={"type": "array", "items": TEXT}, institution=TEXT, hospital=TEXT), COUNTED),
    _get("/cases", "list_cases", "Open cases, the oldest first", _list("cases", CaseView, goes_on=True),
         (*OF_ROLE, "invalid_request"), "kind", "after", "limit"),
    _get("/case-counts", "count_cases", "How many of each kind are open",
         _record(counts={"type": "array", "items": _record(kind=TEXT, title=TEXT, count=NUMBER)}), OF_ROLE),
    _get("/cases/{case_id}", "show_case", "A case with everything known and the actions that the caller may take",
         _CASE, OF_ONE),
    _post("/cases/{case_id}/ask", "ask_now", "Ask channel and HIS at once", _CASE, _ACTION),
    _post("/cases/{case_id}/resume", "resume", "A refund that waits for a person goes on", _CASE, _ACTION),
    _post("/cases/{case_id}/close", "close", "Close a case of which no money is open", _CASE, _ACTION,
          body="ReasonBody"),
    _get("/decisions", "list_decisions", "What waits for a second person, the oldest first",
         _list("decisions", DecisionView, goes_on=True), (*OF_ROLE, "invalid_request"), "after", "limit"),
    _post("/decisions", "propose", "Propose with a document what another person is to approve", _DECISION,
          (*_ACTION, "already_decided", "idempotency_conflict"), body="ProposeBody", keyed=True),
    _get("/decisions/{decision_id}", "show_decision", "A proposal and what became of it", _DECISION, OF_ONE),
    _get("/decisions/{decision_id}/document", "read_document", "The document itself; who reads it is written down",
         _record(document=TEXT), OF_ONE),
    _post("/decisions/{decision_id}/approve", "approve", "Do what another person has proposed", _DECISION, _DECIDE),
    _post("/decisions/{decision_id}/decline", "decline", "Do not; or take one's own proposal back", _DECISION, _DECIDE),
    _get("/payments", "find_payments", "By order, trade, confirmation, refund, receipt or bill number, whole",
         _list("payments", PaymentBrief), (*OF_ROLE, "invalid_request"), "number"),
    _get("/payments/{order_no}", "show_payment", "All that is known of a payment", schema(PaymentFile), OF_ONE),
    _get("/evidence/{event_id}/raw", "read_raw", "The bytes behind a piece of evidence; who reads them is written down",
         _record(raw=TEXT), OF_ONE),
    _get("/payments/{order_no}/refund-options", "show_options", "What may go back, line by line, as the HIS says now",
         _list("options", RefundOption), (*OF_ONE, *OF_HIS)),
    _post("/payments/{order_no}/refunds", "request_refund", "Ask for lines, or parts of them, to go back", _REFUND,
          (*OF_ONE, *OF_HIS, "idempotency_conflict"), body="RefundBody", keyed=True),
    _get("/refunds", "list_waiting", "Refunds that wait for a second person", _list("refunds", RefundBrief), OF_ROLE),
    _post("/refunds/{refund_no}/approve", "approve_refund", "A second person's yes", _REFUND,
          (*OF_ONE, *OF_HIS, "already_decided", "needs_another")),
    _post("/refunds/{refund_no}/decline", "decline_refund", "A second person's no, or the requester's own", _REFUND,
          (*OF_ONE, *OF_HIS, "already_decided"), body="ReasonBody"),
    _get("/audit", "list_audit", "What was done, the newest first", _list("audit", AuditView, goes_on=True),
         (*OF_ROLE, "invalid_request"), "subject", "before", "limit"),
)  # fmt: skip


@cache
def document(prefix: str) -> Json:
    """The whole document for an API that lies under `prefix`."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(prefix + operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "description": DESCRIPTION},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _schemas() -> Mapping[str, Json]:
    found: dict[str, Json] = {}
    for root in RECORDS:
        for kind in records_in(root):
            found[kind.__name__] = record_schema(kind)
    case = found["CaseView"]
    words = {"title": TEXT, "what_to_do": TEXT}
    found["CaseView"] = {**case, "properties": {**case["properties"], **words}, "required": [*case["required"], *words]}
    for body in BODIES:
        described = body.model_json_schema(ref_template="#/components/schemas/{model}")
        found |= described.pop("$defs", {})
        found[body.__name__] = described
    found["Error"] = _record(
        error={
            **_record(
                code={"type": "string", "enum": sorted(STATUS)},
                message={**TEXT, "description": "A sentence for the member of staff"},
                request_id=TEXT,
            ),
            "additionalProperties": {"type": ["string", "integer"]},
        }
    )
    return found


def _described(operation: Operation) -> Json:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters: list[Json] = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in names]
    parameters += [{"name": name, "in": "query", "schema": TEXT} for name in operation.query]
    if operation.keyed:
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": True, "schema": TEXT})
    by_status: dict[int, list[str]] = {}
    for code in operation.errors:
        by_status.setdefault(STATUS[code], []).append(code)
    responses: Json = {
        str(operation.status): {"description": "Success", "content": {"application/json": {"schema": operation.answer}}}
    }
    for status, codes in sorted(by_status.items()):
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        responses[str(status)] = {"description": ", ".join(codes), "content": content}
    described: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    }
    if operation.body:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{operation.body}"}}}
        described["requestBody"] = {"required": True, "content": content}
    return described
