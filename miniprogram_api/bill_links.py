"""A HIS asks for the address that it prints on a bill's paper."""

from __future__ import annotations

from collections.abc import Mapping

from sanic import Blueprint
from sanic.response import HTTPResponse

from core.clock import business_day
from core.institutions import PaperCode, Profile
from core.paper import PrintedPaper
from core.ports import Acknowledgement, LinkRefusal, LinkRequest, Unverified
from core.scrubbing import mask_name
from miniprogram_api.labels import barcode_svg, label_svg, qr_svg
from miniprogram_api.notices import Gate, acknowledged
from miniprogram_api.requests import ApiRequest, lower_case_headers, path_text
from miniprogram_api.room import Room


def blueprint(room: Room) -> Blueprint:
    links = Blueprint("bill_links")
    gate = Gate()

    @links.post("/his/v1/bill-links/<token:str>")
    async def bill_link(request: ApiRequest, token: str) -> HTTPResponse:
        with gate.enter(path_text(token)):
            work = _answer(room, token, lower_case_headers(request), request.body)
            return acknowledged(await room.running.finish(work))

    return links


async def _answer(room: Room, token: str, headers: Mapping[str, str], body: bytes) -> Acknowledgement:
    services = room.services
    site, asked = await services.inbounds.read_link_request(token, headers, body)
    profile = await services.institutions.profile(site.institution_id)
    said: Mapping[str, str] | LinkRefusal
    if isinstance(asked, Unverified):
        said = LinkRefusal.NOT_ACCEPTED
    elif profile.settings.paper_code is not PaperCode.HIS_ASKS:
        said = LinkRefusal.PAPERS_OFF
    elif not asked.his_bill_id:
        said = LinkRefusal.UNREADABLE
    else:
        paper = await services.papers.link(site, asked.his_bill_id)
        said = {"bill_id": asked.his_bill_id, "token": paper, "url": services.papers.url(paper)}
        if asked.label:
            said = {**said, **_pictures(profile, said["url"], asked)}
    hospital = services.outside.hospitals[site.adapter]
    return hospital.answer_link_request(site, headers, said, services.outside.clock.now())


def _pictures(profile: Profile, url: str, asked: LinkRequest) -> dict[str, str]:
    """Drawn from the request alone: a HIS that waits for our answer is not asked anything meanwhile."""
    paper = PrintedPaper(
        hospital=profile.name_zh,
        url=url,
        his_bill_id=asked.his_bill_id,
        masked_name=mask_name(asked.name),
        issued_on=business_day(asked.issued_at) if asked.issued_at else None,
    )
    return {
        "qr_svg": qr_svg(url),
        "barcode_svg": barcode_svg(asked.his_bill_id),
        "label_svg": label_svg(paper),
    }
