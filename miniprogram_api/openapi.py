"""The OpenAPI 3.1 document of this API: every route, every code, with examples. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from core.consents import ConsentKind
from core.paper import PaperStage
from core.ports import BillKind
from core.texts import STATUS_TEXTS
from miniprogram_api.errors import STATUS
from miniprogram_api.examples import EXAMPLES, error_example
from miniprogram_api.lists import ASKING, COMPLETE, UNAVAILABLE
from miniprogram_api.schemas import BODIES, json_schema

VERSION = "1"
TITLE = "诊付 Zhenfu: mini program API"
DESCRIPTION = """\
Everything a mini program needs to let a patient pay a hospital's outpatient bills, and the addresses to which \
payment channels and the HIS send their notices.

Amounts are given twice: `…_fen` is a whole number of fen to reckon with, the field beside it is yuan as text to \
show. Times carry their zone (+08:00). Sentences come in the language of `Accept-Language`, Chinese or English. \
Fields that a request does not know are refused; answers may gain fields.

A GET that must ask the HIS answers within 3 seconds. Where the HIS has not answered by then it says 202 with a \
`ticket` (or `hospital_part: "asking"`): ask again after `retry_after_seconds` with `?ticket=…`. Without a ticket \
the HIS is always asked anew.

A payment is started with an `Idempotency-Key` of the app's choice, one per tap on the pay button: the same key \
with the same request gives the same payment. What takes longer than a page waits goes on by itself: `still_working` \
says to send the same request with the same key again after `retry_after_seconds`, and the payment is handed out."""

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "integer"}
FLAG: Json = {"type": "boolean"}
FEN: Json = {"type": "integer", "minimum": 0, "description": "An amount in fen"}
YUAN: Json = {"type": "string", "description": "The same amount in yuan, to show", "examples": ["86.50"]}
MOMENT: Json = {"type": "string", "format": "date-time"}
ID: Json = {"type": "string", "format": "uuid"}


def record(**fields: Json) -> Json:
    """An object whose fields are always all there."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def about(description: str, schema: Json) -> Json:
    return {"description": description, **schema}


def listed(item: Json) -> Json:
    return {"type": "array", "items": item}


def or_null(schema: Json, description: str = "") -> Json:
    if "type" not in schema:
        return {"oneOf": [schema, {"type": "null"}]}
    value = {**schema, "type": [schema["type"], "null"]}
    return {**value, "description": description} if description else value


def one_of(*words: str) -> Json:
    return {"type": "string", "enum": list(words)}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


STATUS_WORDS = one_of(*STATUS_TEXTS)
HOSPITAL_PART: dict[str, Json] = {
    "hospital_part": one_of(COMPLETE, ASKING, UNAVAILABLE),
    "hospital_text": or_null(TEXT, "Why the hospital's part is missing, to show"),
    "ticket": or_null(TEXT, "Fetches the hospital's part later"),
}
BILL_FIELDS: dict[str, Json] = {
    "branch": TEXT,
    "bill_id": TEXT,
    "visit_no": TEXT,
    "kind": one_of(*BillKind),
    "kind_text": TEXT,
    "title": TEXT,
    "department": TEXT,
    "doctor": TEXT,
    "issued_at": or_null(MOMENT),
    "amount_fen": FEN,
    "amount": YUAN,
    "total_fen": FEN,
    "total": YUAN,
    "insured": FLAG,
    "treat_first": FLAG,
    "merge_group": TEXT,
    "payable": {**FLAG, "description": "May be paid here now"},
    "payable_online": {**FLAG, "description": "The HIS's own word"},
    "reason": or_null(TEXT, "Why it may not be paid here"),
    "reason_text": or_null(TEXT),
    "needs_second_tap": {**FLAG, "description": "Send accept_self_paid after the payer has read second_tap_text"},
    "second_tap_text": or_null(TEXT),
    "valid_until": or_null(MOMENT, "Until when the HIS accepts payment, if it says so"),
    "valid_until_text": or_null(TEXT),
    "items_count": or_null(NUMBER, "null where the HIS gives no items in its list"),
    "status": STATUS_WORDS,
    "status_text": TEXT,
    "order_no": or_null(TEXT, "The payer's own open payment of this bill"),
}
RETURN_REASON = or_null(record(code=TEXT, text=TEXT, his_text=or_null(TEXT)))

SCHEMAS: dict[str, Json] = {
    "Error": record(
        error={
            "type": "object",
            "properties": {
                "code": one_of(*sorted(STATUS)),
                "message": {**TEXT, "description": "A sentence for the patient"},
                "request_id": TEXT,
                "reason": {**TEXT, "description": "More exactly why, for some codes"},
                "retry_after_seconds": {**NUMBER, "description": "When to ask again, for codes that pass"},
            },
            "required": ["code", "message", "request_id"],
            "additionalProperties": {"type": ["string", "integer"]},
        }
    ),
    "Asking": about(
        "The HIS has not answered yet; ask again with the ticket.",
        record(status=one_of("asking"), message=TEXT, retry_after_seconds=NUMBER, ticket=TEXT),
    ),
    "Session": record(token=TEXT, expires_at=MOMENT),
    "Patient": record(patient_id=ID, masked_name=TEXT),
    "Patients": record(patients=listed(ref("Patient"))),
    "BoundPayers": about(
        "Everybody who may see and pay for this patient; nobody is named.",
        record(
            payers=listed(
                record(
                    binding_id=ID,
                    is_you=FLAG,
                    platform=TEXT,
                    platform_text=about("Where the patient was bound, to show", TEXT),
                    bound_on=about("The day in Shanghai", {"type": "string", "format": "date"}),
                )
            )
        ),
    ),
    "Bill": record(**BILL_FIELDS),
    "Bills": about(
        "`count` leaves out bills that have been paid through us and that the HIS has not booked yet.",
        record(bills=listed(ref("Bill")), count=NUMBER, merge=record(allowed=FLAG, max=NUMBER)),
    ),
    "BillItem": record(name=TEXT, specification=TEXT, quantity=TEXT, unit=TEXT, amount_fen=FEN, amount=YUAN),
    "BillDetail": record(**BILL_FIELDS, items=listed(ref("BillItem"))),
    "Methods": record(
        methods=listed(record(code=TEXT, channel=TEXT, instrument=TEXT, wallet=TEXT, title=TEXT, favourite=FLAG))
    ),
    "Started": record(
        order_no=TEXT,
        amount_fen=FEN,
        amount=YUAN,
        expires_at=MOMENT,
        pay=or_null(
            {
                "type": "object",
                "properties": {
                    "kind": one_of("miniprogram", "jsapi", "qr_code"),
                    "values": {"type": "object", "additionalProperties": TEXT},
                },
                "required": ["kind", "values"],
            },
            "What the app's pay sheet is opened with; null when there is nothing to collect",
        ),
    ),
    "PaymentLine": record(
        branch=TEXT,
        bill_id=TEXT,
        kind=TEXT,
        kind_text=TEXT,
        title=TEXT,
        amount_fen=FEN,
        amount=YUAN,
        status=STATUS_WORDS,
        status_text=TEXT,
        receipt_no=or_null(TEXT),
        guide_text=or_null(TEXT, "Where to go now, in the HIS's words"),
        receipt_url=or_null(TEXT),
        ebill_url=or_null(TEXT),
        return_reason=RETURN_REASON,
    ),
    "Payment": record(
        order_no=TEXT,
        patient_id=ID,
        method=TEXT,
        status=STATUS_WORDS,
        status_text=TEXT,
        amount_fen=FEN,
        amount=YUAN,
        paid_fen=FEN,
        paid=YUAN,
        returning_fen=FEN,
        returning=YUAN,
        refunded_fen=FEN,
        refunded=YUAN,
        paid_out_fen=FEN,
        paid_out=YUAN,
        created_at=MOMENT,
        expires_at=or_null(MOMENT),
        paid_at=or_null(MOMENT),
        lines=listed(ref("PaymentLine")),
    ),
    "PaidEntry": about(
        "One paid bill, whoever took the money. `order_no` where this payer may open the payment.",
        record(
            source=one_of("zhenfu", "hospital"),
            order_no=or_null(TEXT),
            branch=TEXT,
            bill_id=TEXT,
            title=TEXT,
            kind_text=TEXT,
            amount_fen=FEN,
            amount=YUAN,
            paid_at=MOMENT,
            paid_at_text=TEXT,
            status=STATUS_WORDS,
            status_text=TEXT,
            receipt_no=or_null(TEXT),
            guide_text=or_null(TEXT),
            receipt_url=or_null(TEXT),
            ebill_url=or_null(TEXT),
            paid_by=or_null(TEXT),
            return_reason=RETURN_REASON,
        ),
    ),
    "PaidList": record(paid=listed(ref("PaidEntry")), count=NUMBER, **HOSPITAL_PART),
    "Counts": record(
        to_pay=or_null(NUMBER, "null while the HIS has not said, which is never the same as nothing"),
        paid=NUMBER,
        **HOSPITAL_PART,
    ),
    "Paper": about(
        "A paper prescription as this payer may see it now. `consent`: agree to the notice first (POST "
        "/api/v1/consents). `factor`: the last four characters are needed. `window`: the HIS holds no number to "
        "compare with, so only the cashier can help. `open`: pay `bill` and `others` with `patient_id`.",
        record(
            token=TEXT,
            stage=one_of(*PaperStage),
            hospital=TEXT,
            masked_name=TEXT,
            issued_on=or_null({"type": "string", "format": "date"}, "The day in Shanghai"),
            consent_version=about("Of the notice that is to be agreed to", TEXT),
            asks_phone=about("The last four digits of a phone will do", FLAG),
            asks_document=about("The last four characters of a document or hospital card will do", FLAG),
            order_no=or_null(TEXT, "The payer's own payment of this bill, whatever has become of it"),
            patient_id=or_null(ID, "Once it is open"),
            bill=or_null(ref("BillDetail")),
            others=about("The visit's other unpaid bills", listed(ref("Bill"))),
        ),
    ),
    "Consents": record(
        version=about("Of the notice that is shown now", TEXT),
        consents=listed(record(kind=one_of(*ConsentKind), version=TEXT, way=TEXT, given_at=MOMENT)),
    ),
    "Health": record(status=one_of("ok", "database_away")),
}

OF_THE_SERVER = ("too_many_requests", "request_timeout", "internal_error", "service_unavailable", "took_too_long")
SIGNED_IN = ("not_signed_in", *OF_THE_SERVER)
OF_A_PATIENT = (*SIGNED_IN, "patient_not_bound", "not_found")
OF_A_PAPER = ("not_found", "bill_not_payable", "hospital_unavailable")
OF_A_BODY = ("invalid_request", "body_too_large")


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One route."""

    method: str
    path: str
    id: str
    tag: str
    summary: str
    answers: Mapping[int, str | None]  # status → schema, None for no body of ours
    errors: Sequence[str] = ()
    body: str = ""
    signed_in: bool = True
    ticket: bool = False
    own_refusals: bool = False  # a counterparty hears "not accepted" in its own form
    headers: Sequence[str] = ()
    path_values: Mapping[str, Json] = field(default_factory=dict)


_OF_PATIENT: Mapping[str, Json] = {"patient_id": ID}
_OF_BILL: Mapping[str, Json] = {
    "patient_id": ID,
    "branch": {**TEXT, "description": 'The bill\'s branch, "-" for the empty one'},
    "bill_id": TEXT,
}
_ORDER_NO: Mapping[str, Json] = {"order_no": TEXT}
_TOKEN: Mapping[str, Json] = {"token": TEXT}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="post",
        path="/api/v1/sessions",
        id="sign_in",
        tag="sessions",
        summary="Trade the app's one-use login code for an access token that lives 12 hours",
        answers={201: "Session"},
        errors=(*SIGNED_IN, *OF_A_BODY, "not_found", "platform_unavailable"),
        body="SignIn",
        signed_in=False,
    ),
    Operation(
        method="get",
        path="/api/v1/patients",
        id="list_patients",
        tag="patients",
        summary="Whom this payer has bound",
        answers={200: "Patients"},
        errors=SIGNED_IN,
    ),
    Operation(
        method="post",
        path="/api/v1/patients",
        id="bind_patient",
        tag="patients",
        summary="Bind a person whose document, name and phone the HIS knows; consent comes first",
        answers={201: "Patient"},
        errors=(
            *SIGNED_IN, *OF_A_BODY, "consent_needed", "binding_refused", "hospital_unavailable", "platform_unavailable",
        ),
        body="BindPatient",
    ),
    Operation(
        method="delete",
        path="/api/v1/patients/{patient_id}",
        id="unbind_patient",
        tag="patients",
        summary="Remove a binding",
        answers={204: None},
        errors=(*SIGNED_IN, "not_found"),
        path_values=_OF_PATIENT,
    ),
    Operation(
        method="get",
        path="/api/v1/patients/{patient_id}/payers",
        id="list_payers",
        tag="patients",
        summary="Everybody who has bound this patient",
        answers={200: "BoundPayers"},
        errors=OF_A_PATIENT,
        path_values=_OF_PATIENT,
    ),
    Operation(
        method="delete",
        path="/api/v1/patients/{patient_id}/payers/{binding_id}",
        id="remove_payer",
        tag="patients",
        summary="Remove somebody's binding of this patient, or one's own; whoever has bound the patient may",
        answers={204: None},
        errors=OF_A_PATIENT,
        path_values={**_OF_PATIENT, "binding_id": ID},
    ),
    Operation(
        method="get",
        path="/api/v1/patients/{patient_id}/bills",
        id="list_bills",
        tag="bills",
        summary="What the HIS says now that this patient owes",
        answers={200: "Bills", 202: "Asking"},
        errors=(*OF_A_PATIENT, "hospital_unavailable"),
        ticket=True,
        path_values=_OF_PATIENT,
    ),
    Operation(
        method="get",
        path="/api/v1/patients/{patient_id}/bills/{branch}/{bill_id}",
        id="show_bill",
        tag="bills",
        summary="One bill with its items",
        answers={200: "BillDetail", 202: "Asking"},
        errors=(*OF_A_PATIENT, "bill_not_payable", "hospital_unavailable"),
        ticket=True,
        path_values=_OF_BILL,
    ),
    Operation(
        method="get",
        path="/api/v1/patients/{patient_id}/paid",
        id="list_paid",
        tag="bills",
        summary="What has been paid, through us and at the window; our part is there even when the HIS is silent",
        answers={200: "PaidList"},
        errors=OF_A_PATIENT,
        ticket=True,
        path_values=_OF_PATIENT,
    ),
    Operation(
        method="get",
        path="/api/v1/patients/{patient_id}/counts",
        id="count_bills",
        tag="bills",
        summary="How long the two lists are now",
        answers={200: "Counts"},
        errors=OF_A_PATIENT,
        ticket=True,
        path_values=_OF_PATIENT,
    ),
    Operation(
        method="get",
        path="/api/v1/patients/{patient_id}/methods",
        id="list_methods",
        tag="bills",
        summary="The ways of paying that this app may offer, favourites first",
        answers={200: "Methods"},
        errors=OF_A_PATIENT,
        path_values=_OF_PATIENT,
    ),
    Operation(
        method="post",
        path="/api/v1/papers",
        id="open_paper",
        tag="papers",
        summary="What was scanned or typed: a token, the whole address, or the HIS's own barcode",
        answers={200: "Paper", 202: "Asking"},
        errors=(*SIGNED_IN, *OF_A_BODY, *OF_A_PAPER, "factor_locked"),
        ticket=True,
        body="OpenPaper",
    ),
    Operation(
        method="get",
        path="/api/v1/papers/{token}",
        id="show_paper",
        tag="papers",
        summary="How far this payer has come with a paper",
        answers={200: "Paper", 202: "Asking"},
        errors=(*SIGNED_IN, *OF_A_PAPER),
        ticket=True,
        path_values=_TOKEN,
    ),
    Operation(
        method="post",
        path="/api/v1/papers/{token}/factor",
        id="prove_paper",
        tag="papers",
        summary="Open a paper with the last four characters. A 202 is no guess yet: send the same with the ticket",
        answers={200: "Paper", 202: "Asking"},
        errors=(*SIGNED_IN, *OF_A_BODY, *OF_A_PAPER, "consent_needed", "factor_wrong", "factor_locked"),
        ticket=True,
        body="FactorBody",
        path_values=_TOKEN,
    ),
    Operation(
        method="get",
        path="/api/v1/consents",
        id="list_consents",
        tag="consents",
        summary="What this payer has agreed to, and the version of the notice that is shown now",
        answers={200: "Consents"},
        errors=SIGNED_IN,
    ),
    Operation(
        method="post",
        path="/api/v1/consents",
        id="give_consent",
        tag="consents",
        summary="Agree to the notice that is shown now, each kind separately",
        answers={201: "Consents"},
        errors=(*SIGNED_IN, *OF_A_BODY, "consent_needed", "binding_refused", "platform_unavailable"),
        body="GiveConsent",
    ),
    Operation(
        method="delete",
        path="/api/v1/consents/{kind}",
        id="withdraw_consent",
        tag="consents",
        summary="Withdraw a consent. Without `personal` no patient stays bound, no paper open, and no SMS is sent",
        answers={204: None},
        errors=(*SIGNED_IN, "not_found"),
        path_values={"kind": one_of(*ConsentKind)},
    ),
    Operation(
        method="post",
        path="/api/v1/payments",
        id="start_payment",
        tag="payments",
        summary="Begin a payment, or get the open one again (200). An error means that this call has charged nobody",
        answers={201: "Started", 200: "Started"},
        errors=(
            *OF_A_PATIENT, *OF_A_BODY, "bill_not_payable", "amount_changed", "payment_open_elsewhere",
            "already_paid", "still_working", "method_not_available", "idempotency_conflict", "hospital_unavailable",
            "channel_unavailable",
        ),
        body="StartPaymentBody",
        headers=("Idempotency-Key",),
    ),
    Operation(
        method="get",
        path="/api/v1/payments/{order_no}",
        id="show_payment",
        tag="payments",
        summary="How a payment stands; while it is open the channel is asked",
        answers={200: "Payment"},
        errors=(*SIGNED_IN, "not_found"),
        path_values=_ORDER_NO,
    ),
    Operation(
        method="post",
        path="/api/v1/payments/{order_no}/cancel",
        id="cancel_payment",
        tag="payments",
        summary="The payer has closed the pay sheet: end the payment. If it was paid after all, the answer says so",
        answers={200: "Payment"},
        errors=(*SIGNED_IN, "invalid_request", "not_found"),
        path_values=_ORDER_NO,
    ),
    Operation(
        method="post",
        path="/n/{token}",
        id="channel_notice",
        tag="notices",
        summary="A payment channel's notice; answered in the channel's own form once it is stored",
        answers={200: None, 204: None},
        own_refusals=True,
        errors=("not_found", "body_too_large", *OF_THE_SERVER),
        signed_in=False,
        path_values=_TOKEN,
    ),
    Operation(
        method="post",
        path="/his/v1/events/{token}",
        id="hospital_event",
        tag="notices",
        summary="An event of the HIS; answered in the HIS's own form once it is stored",
        answers={200: None},
        own_refusals=True,
        errors=("not_found", "body_too_large", *OF_THE_SERVER),
        signed_in=False,
        path_values=_TOKEN,
    ),
    Operation(
        method="post",
        path="/his/v1/bill-links/{token}",
        id="bill_link",
        tag="notices",
        summary="The HIS asks for the address on a bill's paper; answered in the HIS's own form, signed",
        answers={200: None},
        own_refusals=True,
        errors=("not_found", "body_too_large", *OF_THE_SERVER),
        signed_in=False,
        path_values=_TOKEN,
    ),
    Operation(
        method="get",
        path="/health/live",
        id="live",
        tag="health",
        summary="Whether this program runs",
        answers={200: "Health"},
        signed_in=False,
    ),
    Operation(
        method="get",
        path="/health/ready",
        id="ready",
        tag="health",
        summary="Whether this program can work: its database answers",
        answers={200: "Health", 503: "Health"},
        signed_in=False,
    ),
)  # fmt: skip


@cache
def document() -> Json:
    """The whole document."""
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "description": DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": {**_body_schemas(), **SCHEMAS},
            "securitySchemes": {"session": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> Json:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in operation.path_values.items()
    ]
    parameters += [
        {"name": name, "in": "header", "required": True, "schema": {**TEXT, "minLength": 1, "maxLength": 128}}
        for name in operation.headers
    ]
    if operation.ticket:
        parameters.append({"name": "ticket", "in": "query", "required": False, "schema": TEXT})
    described: Json = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": parameters,
        "responses": _responses(operation),
    }
    if operation.body:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    if operation.signed_in:
        described["security"] = [{"session": []}]
    return described


def _responses(operation: Operation) -> Json:
    responses: Json = {}
    for status, schema in operation.answers.items():
        responses[str(status)] = {"description": "Success" if status < 300 else "Not accepted"}
        if schema:
            responses[str(status)]["content"] = _content(schema)
    if operation.own_refusals:
        responses["default"] = {"description": "Not accepted, in the counterparty's own form"}
    by_status: dict[int, list[str]] = {}
    for code in operation.errors:
        by_status.setdefault(STATUS[code], []).append(code)
    for status, codes in sorted(by_status.items()):
        examples = {code: {"value": error_example(code)} for code in codes}
        responses[str(status)] = {
            "description": ", ".join(codes),
            "content": {"application/json": {"schema": ref("Error"), "examples": examples}},
        }
    return responses


def _content(schema: str) -> Json:
    return {"application/json": {"schema": ref(schema), "example": EXAMPLES[schema]}}


def _body_schemas() -> Json:
    found: Json = {}
    for body in BODIES:
        schema = json_schema(body)
        found |= schema.pop("$defs", {})
        found[body.__name__] = schema
    return found
