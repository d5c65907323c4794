"""Several bills of one patient in one payment: chosen in the list, looked through here, and paid at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

from sanic import Blueprint
from sanic.response import HTTPResponse, redirect

from core.errors import InvalidRequest, NotFound, PatientNotBound, RequestError
from core.money import Fen, yuan_text
from core.ports import Bill
from core.together import MERGE_MAX, bills_max, check_group, check_number, groups
from miniprogram_api import views
from miniprogram_api.h5.door import Visit
from miniprogram_api.h5.forms import text_of
from miniprogram_api.h5.pages import Pages
from miniprogram_api.h5.tapping import Tap, begin, watched
from miniprogram_api.lists import NOT_TO_PAY, UnpaidBill
from miniprogram_api.requests import NO_BRANCH, ApiRequest, branch_of, path_text
from miniprogram_api.room import tickets
from miniprogram_api.running import Asking

KEYS_LENGTH_MAX = 8192

Keys = tuple[tuple[str, str], ...]


def blueprint(pages: Pages) -> Blueprint:
    together = Blueprint("h5_together", url_prefix="/h/<code:str>/together/<patient_id:uuid>")

    @together.get("/")
    async def look_through(request: ApiRequest, code: str, patient_id: UUID) -> HTTPResponse:
        visit = await pages.visit(request, code)
        keys = keys_of(request.args.getlist("bill") or [])
        unpaid = unpaid_path(visit, patient_id)
        if not keys and not request.args.get("all"):
            return redirect(f"{unpaid}&chosen=none", status=303)
        try:
            found = await _found(pages, request, visit, patient_id, keys)
        except PatientNotBound:
            return pages.closed(request, visit)
        except RequestError as refused:
            return pages.refused(request, visit, refused, retry=unpaid)
        if isinstance(found, Asking):
            return pages.asking(request, visit, found)
        if not found:
            return redirect(unpaid, status=303)
        back = together_path(visit, patient_id, [_bill_key(each.shown.bill) for each in found])
        order_nos = {each.order_no for each in found if each.status == "paying"}
        if request.args.get("watch") and len(order_nos) == 1 and "" not in order_nos:
            return await watched(pages, request, visit, order_nos.pop(), again=back)
        return await _page(pages, request, visit, patient_id, found)

    @together.post("/pay")
    async def pay(request: ApiRequest, code: str, patient_id: UUID) -> HTTPResponse:
        visit = await pages.visit(request, code)
        keys = keys_of(text_of(request, "bills", length_max=KEYS_LENGTH_MAX).split())
        if not keys:
            raise InvalidRequest(field="bills", problem="is missing")
        back = together_path(visit, patient_id, keys)
        tap = Tap(patient_id=patient_id, bills=keys, page=back, action=request.path, again=f"{back}&watch=1")
        return await begin(pages, request, visit, tap)

    return together


def keys_of(texts: Sequence[str]) -> Keys:
    """Bills as a form names them. Raises NotFound for what is no such name, InvalidRequest for too many."""
    if len(texts) > MERGE_MAX:
        raise InvalidRequest(field="bills", problem="has the wrong form")
    keys = []
    for text in texts:
        branch, slash, bill_id = str(text).partition("/")
        if not slash:
            raise NotFound()
        keys.append((branch_of(unquote(branch)), path_text(unquote(bill_id))))
    return tuple(dict.fromkeys(keys))


def _key(branch: str, bill_id: str) -> str:
    """A bill as a form names it; within an address, too."""
    return f"{quote(branch, safe='') or NO_BRANCH}/{quote(bill_id, safe='')}"


def unpaid_path(visit: Visit, patient_id: UUID) -> str:
    return f"/h/{quote(visit.profile.code, safe='')}/?patient={patient_id}"


def together_path(visit: Visit, patient_id: UUID, keys: Sequence[tuple[str, str]]) -> str:
    query = "&".join(f"bill={quote(_key(*key), safe='/')}" for key in keys)
    return f"/h/{quote(visit.profile.code, safe='')}/together/{patient_id}?{query}"


def choices(visit: Visit, patient_id: UUID, unpaid: Sequence[UnpaidBill]) -> list[dict[str, Any]]:
    """What the list offers to pay together, group by group, with the sums that are paid."""
    payable = {_bill_key(each.shown.bill): each for each in unpaid if _is_payable(each)}
    to_pay = sum(each.status not in NOT_TO_PAY for each in unpaid)
    most = bills_max(visit.profile.settings)
    offered = []
    for group in groups([each.shown.bill for each in payable.values()], visit.profile.settings):
        bills = [payable[_bill_key(bill)] for bill in group]
        offered.append(
            {
                "bills": [views.bill(each, visit.profile, visit.look.language) for each in bills],
                "amount": yuan_text(_sum(bills)),
                "url": together_path(visit, patient_id, [_bill_key(bill) for bill in group])
                if len(bills) <= most
                else "",
                "is_all": len(bills) == to_pay,
                "most": most,
            }
        )
    return offered


def _bill_key(bill: Bill) -> tuple[str, str]:
    return bill.branch, bill.his_bill_id


def _is_payable(each: UnpaidBill) -> bool:
    return each.shown.payable and each.status not in NOT_TO_PAY


def _sum(bills: Sequence[UnpaidBill]) -> Fen:
    return Fen(sum(each.shown.bill.to_pay_fen for each in bills))


async def _found(
    pages: Pages, request: ApiRequest, visit: Visit, patient_id: UUID, keys: Keys
) -> list[UnpaidBill] | Asking:
    """The bills that were chosen; without a choice the only group that there is. Empty: the list shows more."""
    lists, settings = pages.room.lists, visit.profile.settings
    if keys:
        check_number(len(keys), settings)
        found = await lists.several(visit.session, patient_id, keys, tickets(request))
        if not isinstance(found, Asking):
            check_group([each.shown.bill for each in found])
        return found
    unpaid = await lists.unpaid(visit.session, patient_id, tickets(request))
    if isinstance(unpaid, Asking):
        return unpaid
    payable = {_bill_key(each.shown.bill): each for each in unpaid if _is_payable(each)}
    offered = groups([each.shown.bill for each in payable.values()], settings)
    if len(offered) != 1 or len(offered[0]) > bills_max(settings):
        return []
    return [payable[_bill_key(bill)] for bill in offered[0]]


async def _page(
    pages: Pages, request: ApiRequest, visit: Visit, patient_id: UUID, found: Sequence[UnpaidBill]
) -> HTTPResponse:
    """All of them with their sum; the form to pay is there only when each of them can be paid."""
    services = pages.room.services
    total = _sum(found)
    values: Mapping[str, Any] = {
        "bills": [views.bill(each, visit.profile, visit.look.language) for each in found],
        "total_fen": total,
        "total": yuan_text(total),
        "is_payable": all(_is_payable(each) for each in found),
        "is_begun": any(each.status == "paying" and each.order_no for each in found),
        "is_paid_by_others": any(each.status == "paying" and not each.order_no for each in found),
        "keys": " ".join(_key(*_bill_key(each.shown.bill)) for each in found),
        "action": f"/h/{quote(visit.profile.code, safe='')}/together/{patient_id}/pay",
        "unpaid_url": unpaid_path(visit, patient_id),
        "patient_name": await services.patients.masked_name(visit.profile.id, patient_id),
        "key": services.outside.ids.token(),
    }
    return pages.show(request, visit, "together.html", **values)
