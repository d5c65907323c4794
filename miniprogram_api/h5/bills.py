"""The two lists side by side, and one bill with its form to pay it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

from sanic import Blueprint
from sanic.response import HTTPResponse

from core.errors import BillNotPayable, HospitalUnavailable, NotFound, PatientNotBound, PlatformUnavailable
from core.models import Payment
from core.patients import BoundPatient
from core.states import PaymentStatus
from miniprogram_api import views
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.pages import Pages, with_ticket
from miniprogram_api.h5.rendering import Refresh
from miniprogram_api.h5.tapping import watched
from miniprogram_api.h5.together import choices
from miniprogram_api.lists import ASKING, COMPLETE, NOT_TO_PAY, UNAVAILABLE, PaidEntry, PaidList, UnpaidBill
from miniprogram_api.requests import NO_BRANCH, ApiRequest, branch_of, path_text
from miniprogram_api.room import tickets
from miniprogram_api.running import Asking


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """Both lists of one patient, as far as the HIS has answered, and what the payer paid for others."""

    patients: Sequence[BoundPatient]
    chosen: BoundPatient | None
    unpaid: Sequence[UnpaidBill] = ()
    unpaid_part: str = COMPLETE
    paid: PaidList | None = None
    others: Sequence[PaidEntry] = ()
    waits_for: Sequence[str] = ()  # tickets

    @property
    def unpaid_count(self) -> int | None:
        """None while the HIS has not said: that is never the same as nothing."""
        if self.chosen is None or self.unpaid_part != COMPLETE:
            return None
        return sum(bill.status not in NOT_TO_PAY for bill in self.unpaid)

    @property
    def paid_count(self) -> int:
        return (len(self.paid.entries) if self.paid else 0) + len(self.others)


def blueprint(pages: Pages) -> Blueprint:
    bills = Blueprint("h5_bills", url_prefix="/h/<code:str>")

    @bills.get("/")
    async def list_unpaid(request: ApiRequest, code: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        return await _list(pages, request, visit, "unpaid.html")

    @bills.get("/paid")
    async def list_paid(request: ApiRequest, code: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        order_no = str(request.args.get("order", ""))
        just_paid = await own_payment(pages, visit, path_text(order_no)) if order_no else None
        return await _list(pages, request, visit, "paid.html", just_paid=just_paid)

    @bills.get("/bills/<patient_id:uuid>/<branch:str>/<bill_id:str>", unquote=True)
    async def show_bill(request: ApiRequest, code: str, patient_id: UUID, branch: str, bill_id: str) -> HTTPResponse:
        visit = await pages.visit(request, code)
        try:
            found = await pages.room.lists.bill(
                visit.session, patient_id, branch_of(branch), path_text(bill_id), tickets(request)
            )
        except PatientNotBound:
            return pages.closed(request, visit)
        if isinstance(found, Asking):
            return pages.asking(request, visit, found)
        if request.args.get("watch") and found.order_no and found.status == "paying":
            return await watched(pages, request, visit, found.order_no, again=request.path)
        name = await pages.room.services.patients.masked_name(visit.profile.id, patient_id)
        return pages.show(request, visit, "bill.html", **bill_values(pages, visit, found, patient_id, name))

    return bills


async def _list(pages: Pages, request: ApiRequest, visit: Visit, template: str, **values: Any) -> HTTPResponse:
    overview = await _overview(pages, request, visit)
    language = visit.look.language
    together = choices(visit, overview.chosen.patient_id, overview.unpaid) if overview.chosen else []
    offered = {(bill["branch"], bill["bill_id"]) for group in together for bill in group["bills"]}
    bills = [views.bill(bill, visit.profile, language) for bill in overview.unpaid]
    refresh = Refresh(url=with_ticket(request, ",".join(overview.waits_for))) if overview.waits_for else None
    return pages.show(
        request,
        visit,
        template,
        refresh=refresh,
        overview=overview,
        together=together,
        chose_none=bool(request.args.get("chosen")),
        bills=[bill for bill in bills if (bill["branch"], bill["bill_id"]) not in offered],
        paid=views.paid(overview.paid, language) if overview.paid is not None else None,
        others=views.paid(PaidList(entries=tuple(overview.others), hospital_part=COMPLETE), language)["paid"],
        **values,
    )


async def _overview(pages: Pages, request: ApiRequest, visit: Visit) -> Overview:
    lists, waits = pages.room.lists, tickets(request)
    patients = await _patients(pages, visit)
    others = await lists.paid_for_others(visit.session, [patient.patient_id for patient in patients])
    chosen = _chosen(request, patients)
    if chosen is None:
        return Overview(patients=patients, chosen=None, others=others)
    unpaid, paid = await asyncio.gather(
        _unpaid(pages, visit, chosen, waits), lists.paid(visit.session, chosen.patient_id, waits)
    )
    return Overview(
        patients=patients,
        chosen=chosen,
        unpaid=unpaid if isinstance(unpaid, list) else (),
        unpaid_part=UNAVAILABLE if unpaid is None else ASKING if isinstance(unpaid, Asking) else COMPLETE,
        paid=paid,
        others=others,
        waits_for=[
            *([unpaid.ticket] if isinstance(unpaid, Asking) else []),
            *([paid.ticket] if paid.ticket else []),
        ],
    )


async def _patients(pages: Pages, visit: Visit) -> list[BoundPatient]:
    """Whom this person has bound here or, as far as the platform tells who he is, in the hospital's other accounts."""
    services = pages.room.services
    found = await services.patients.bound(visit.payer)
    if found or visit.payer.union_lookup:
        return found
    try:
        payer = await pages.room.running.in_time(
            pages.room.wait_seconds, services.patients.joined(visit.payer), late=PlatformUnavailable()
        )
    except PlatformUnavailable:
        return found
    return await services.patients.bound(payer)


async def _unpaid(
    pages: Pages, visit: Visit, patient: BoundPatient, waits: frozenset[str]
) -> list[UnpaidBill] | Asking | None:
    """None: the HIS cannot be asked now."""
    try:
        return await pages.room.lists.unpaid(visit.session, patient.patient_id, waits)
    except (HospitalUnavailable, BillNotPayable):
        return None


def _chosen(request: ApiRequest, patients: Sequence[BoundPatient]) -> BoundPatient | None:
    """The patient named in the address, else the first. Raises NotFound for one who is not the payer's."""
    wanted = str(request.args.get("patient", ""))
    if not wanted:
        return patients[0] if patients else None
    found = next((patient for patient in patients if str(patient.patient_id) == wanted), None)
    if found is None:
        raise NotFound()
    return found


# ---------------------------------------------------------------- values of a page


def bill_path(visit: Visit, patient_id: UUID, branch: str, bill_id: str) -> str:
    code, branch, bill_id = (quote(part, safe="") for part in (visit.profile.code, branch or NO_BRANCH, bill_id))
    return f"/h/{code}/bills/{patient_id}/{branch}/{bill_id}"


def bill_values(pages: Pages, visit: Visit, found: UnpaidBill, patient_id: UUID, masked_name: str) -> dict[str, Any]:
    """One bill with its form; `key` makes two taps on the button one payment."""
    said = found.shown.bill
    return {
        "bill": views.bill_detail(found, visit.profile, visit.look.language),
        "bill_url": bill_path(visit, patient_id, said.branch, said.his_bill_id),
        "bills_url": f"/h/{quote(visit.profile.code, safe='')}/bills/{patient_id}",
        "patient_name": masked_name,
        "key": pages.room.services.outside.ids.token(),
    }


async def own_payment(pages: Pages, visit: Visit, order_no: str) -> dict[str, Any]:
    """The payer's own payment, asked of the channel while it is open. Raises NotFound."""
    services, room = pages.room.services, pages.room
    payment = await services.payments.of_payer(visit.payer.id, visit.profile.id, order_no)
    if payment.status is PaymentStatus.PENDING:
        await room.running.at_most(
            room.wait_seconds, services.payments.refreshed(visit.payer.id, visit.profile.id, order_no)
        )
        payment = await services.payments.of_payer(visit.payer.id, visit.profile.id, order_no)
    lines = await services.payments.lines(payment)
    return {
        **views.payment(payment, lines, visit.look.language),
        "without_sheet": _without_sheet(payment),
        "sheet": services.payments.pay_sheet(payment),
        "patient_name": await services.patients.masked_name(visit.profile.id, payment.patient_id),
    }


def _without_sheet(payment: Payment) -> str:
    """The key of the text for an open payment that has no pay sheet: no longer, or not yet."""
    if payment.close_wanted:
        return "sheet_closing"
    return "sheet_preparing" if payment.status is PaymentStatus.CREATED else "sheet_over"
