"""The sandbox page: a doctor's desk, two patients' phones, three books, the clock and the faults, on one screen.

Everything here acts on the simulators of the same process. The phone's mini program reaches the product as a real
one does, over HTTP with its own session token; `/phone-api/` only spares it another origin.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import jinja2
from sanic import Sanic
from sanic.exceptions import NotFound
from sanic.request import Request
from sanic.response import HTTPResponse, html, raw
from sanic.response import json as json_response
from yarl import URL

from simulators.console.acting import Acts
from simulators.console.door import keep_door
from simulators.console.papers import FACTORS, MODES, bars_svg, qr_svg
from simulators.console.phones import PHONES
from simulators.console.world import WECHAT_PREFIX, ConsoleWorld, Mistake
from simulators.hospital_books import Refusal
from simulators.hospital_stock import KINDS

HERE = Path(__file__).parent
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
BODY_BYTES_MAX = 64 << 10
PROXIED_UP = ("accept", "accept-language", "authorization", "content-type", "idempotency-key")
PROXIED_DOWN = ("content-language", "retry-after", "content-disposition")
PRODUCT_TIMEOUT_SECONDS = 65.0

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

POLICY = (
    "default-src 'self'; img-src 'self' data:; frame-src {frames}; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'"
)

Act = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


def create_console(world: ConsoleWorld, *, host_names: frozenset[str] = LOOPBACK_NAMES) -> Sanic[Any, Any]:
    """The page and its JSON endpoints, answering only under `host_names`."""
    app: Sanic[Any, Any] = Sanic("simulator_console", configure_logging=False)
    app.config.ACCESS_LOG = False
    app.config.REQUEST_MAX_SIZE = BODY_BYTES_MAX
    app.static("/static", HERE / "static", name="static")
    acts = Acts(world)
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True)
    _guard(app, host_names, world.browser_ports)
    keep_door(app, world.door, opens=True)
    _phone_to_product(app, world.product_url)

    @app.get("/")
    async def page(request: Request) -> HTTPResponse:
        return html(
            templates.get_template("console.html").render(
                institution_name=world.institution_name,
                people=world.people,
                phones=PHONES,
                kinds=[(word, KINDS[word].title) for word in ("western", "chinese", "treatment")],
                modes=MODES,
                factors=FACTORS,
                world=_for_the_page(world),
            )
        )

    @app.get("/phone/<number:int>")
    async def one_phone(request: Request, number: int) -> HTTPResponse:
        """One phone alone, as large as the screen: for a real phone's browser."""
        if number not in PHONES:
            raise NotFound()
        return html(
            templates.get_template("one_phone.html").render(
                institution_name=world.institution_name,
                people=world.people,
                phones=(number,),
                world=_for_the_page(world) | {"alone": number},
            )
        )

    @app.get("/paper/<bill_id>/bars.svg")
    async def paper_bars(request: Request, bill_id: str) -> HTTPResponse:
        if bill_id not in world.hospital.bills:
            raise NotFound()
        return raw(bars_svg(bill_id), content_type="image/svg+xml")

    @app.get("/paper/<bill_id>/code.svg")
    async def paper_code(request: Request, bill_id: str) -> HTTPResponse:
        try:
            content = await acts.paper_content(bill_id)
        except Refusal:
            raise NotFound() from None
        if not content.startswith("http"):
            raise NotFound()
        return raw(qr_svg(content), content_type="image/svg+xml")

    @app.get("/favicon.ico")
    async def icon(request: Request) -> HTTPResponse:
        return raw(b"", status=204)

    @app.get("/api/<act:path>", name="look")
    async def look(request: Request, act: str) -> HTTPResponse:
        found = acts.gets.get(act)
        if found is None:
            raise NotFound()
        return await _answer(found, {"person": request.args.get("person", "")})

    @app.post("/api/<act:path>", name="act")
    async def act(request: Request, act: str) -> HTTPResponse:
        found = acts.posts.get(act)
        if found is None:
            raise NotFound()
        asked = _object(request)
        if asked is None:
            return json_response({"error": "需要 JSON 对象"}, status=400)
        return await _answer(found, asked)

    return app


async def _answer(act: Act, asked: Mapping[str, Any]) -> HTTPResponse:
    """The act's answer; what it refuses is told in words that the page shows."""
    try:
        return json_response(await act(asked), dumps=_dumps)
    except Mistake as mistake:
        return json_response({"error": str(mistake)}, status=409, dumps=_dumps)
    except Refusal as refusal:
        return json_response({"error": _refusal_text(refusal)}, status=409, dumps=_dumps)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _refusal_text(refusal: Refusal) -> str:
    said = {
        "LOCKED": "处方正在手机支付中，窗口现在不能办理",
        "BILL_PAID": "处方已缴费",
        "BILL_CANCELLED": "处方已作废",
        "BILL_UNKNOWN": "没有此处方",
        "NOT_PAID": "处方还没有缴费",
    }
    return said.get(refusal.code) or refusal.message or refusal.code


def _for_the_page(world: ConsoleWorld) -> dict[str, Any]:
    """What the page's scripts must know; the identity of the ready people fills their binding form."""
    return {
        "institution": world.institution,
        "institution_name": world.institution_name,
        "miniprogram_app_id": world.miniprogram_app_id,
        "service_app_id": world.service_app_id,
        "product_url": world.product_url,
        "browser_ports": list(world.browser_ports),
        "wechat_prefix": WECHAT_PREFIX,
        "people": [
            {
                "key": person.key,
                "name": person.name,
                "phone_key": person.open_id_user_key,
                "phone_owner": _owner_of_phone(world, person.open_id_user_key),
                "phone": person.phone,
                "identifier_type": person.identifier_type,
                "identifier": person.identifier,
                "note": person.note_zh,
                "is_patient": bool(person.his_patient_ids),
                "patient_name": person.patient_name or person.name,
                "language": person.language,
            }
            for person in world.people
        ],
    }


def _owner_of_phone(world: ConsoleWorld, user: str) -> str:
    return next(person.name for person in world.people if person.open_id_user_key == user)


def _object(request: Request) -> dict[str, Any] | None:
    try:
        value = json.loads(request.body or b"{}")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _guard(app: Sanic[Any, Any], host_names: frozenset[str], browser_ports: Iterable[int]) -> None:
    """Only this page speaks to these endpoints: no other web site through a name of its own, none through a form."""

    @app.on_request
    async def only_our_page(request: Request) -> HTTPResponse | None:
        host = request.headers.get("host", "")
        if (urlsplit(f"//{host}").hostname or "") not in host_names:
            return json_response({"error": "unknown host"}, status=403)
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return json_response({"error": "another origin"}, status=403)
        if request.method == "POST" and not request.headers.get("content-type", "").startswith("application/json"):
            return json_response({"error": "application/json is expected"}, status=415)
        return None

    @app.on_response  # type: ignore[untyped-decorator]
    async def safe_headers(request: Request, response: HTTPResponse) -> None:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        name = f"[{host}]" if ":" in host else host
        frames = " ".join(f"http://{name}:{port}" for port in browser_ports) if host in host_names else "'none'"
        response.headers.setdefault("content-security-policy", POLICY.format(frames=frames or "'none'"))


def _phone_to_product(app: Sanic[Any, Any], product_url: str) -> None:
    """`/phone-api/…` is what the phone sees of the internet: the product's patient API and nothing else."""
    sessions: list[aiohttp.ClientSession] = []

    @app.before_server_start
    async def open_line(app: Sanic[Any, Any]) -> None:
        timeout = aiohttp.ClientTimeout(total=PRODUCT_TIMEOUT_SECONDS, connect=5)
        sessions.append(aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False))

    @app.after_server_stop
    async def close_line(app: Sanic[Any, Any]) -> None:
        while sessions:
            await sessions.pop().close()

    @app.route("/phone-api/<path:path>", methods=["GET", "POST", "DELETE"], unquote=False)
    async def forward(request: Request, path: str) -> HTTPResponse:
        target = request.raw_url.decode("latin-1").removeprefix("/phone-api")
        if not target.startswith("/api/v1/") or ".." in unquote(target):
            raise NotFound()
        headers = {name: request.headers[name] for name in PROXIED_UP if name in request.headers}
        try:
            async with sessions[0].request(
                request.method,
                URL(product_url.rstrip("/") + target, encoded=True),
                headers=headers,
                data=request.body or None,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return json_response({"error": {"code": "no_network", "message": ""}}, status=504)
        return raw(
            body,
            status=answer.status,
            content_type=answer.headers.get("content-type", "application/octet-stream"),
            headers={name: answer.headers[name] for name in PROXIED_DOWN if name in answer.headers},
        )
