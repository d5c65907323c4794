"""Who opens a page: the session in a cookie, and the silent sign-in of the app in which the page is open."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from datetime import timedelta

import segno
from markupsafe import Markup
from sanic.response import HTTPResponse, redirect

from core.errors import NotSignedIn, PlatformUnavailable
from core.institutions import Profile
from core.models import Payer
from core.ports import ChatAccount, ChatPlatform
from miniprogram_api.auth import SESSION_LIFE, Session
from miniprogram_api.h5.addresses import first_page, is_page, page_of
from miniprogram_api.h5.forms import Forms
from miniprogram_api.h5.looks import Look, cookie_of, keep_cookie, look_of
from miniprogram_api.h5.rendering import Renderer, origin_of
from miniprogram_api.limits import ASK, SIGN_IN
from miniprogram_api.requests import ApiRequest
from miniprogram_api.room import Room

SESSION_COOKIE = "zhenfu_session"
SIGN_IN_COOKIE = "zhenfu_sign_in"
HOST_PREFIX = "__Host-"
SIGN_IN_LIFE = timedelta(minutes=10)
CODE_LENGTH_MAX = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """Somebody who has signed in at this institution, looking at one page."""

    profile: Profile
    session: Session
    payer: Payer
    account: ChatAccount
    look: Look
    form_token: str
    sign_in_origin: str


@dataclass(frozen=True, slots=True)
class Door:
    room: Room
    forms: Forms
    renderer: Renderer

    async def visit(self, request: ApiRequest, profile: Profile) -> Visit:
        """Raises NotSignedIn for nobody, or for a session of another institution; TooManyRequests."""
        token = cookie_of(request, self._cookie(SESSION_COOKIE))
        session = self.room.auth.tokens.read(token)
        if session.institution_id != profile.id:
            raise NotSignedIn()
        await self.room.limits.check(ASK, str(session.payer_id))
        payer = await self.room.auth.payer(session)
        account = await self.room.auth.chat_account(payer)
        platform = self.room.services.outside.platforms.get(account.platform)
        visit = Visit(
            profile=profile,
            session=session,
            payer=payer,
            account=account,
            look=look_of(request),
            form_token=self.forms.token(token),
            sign_in_origin=origin_of(self._sign_in_url(platform, account, profile, "0")) if platform else "",
        )
        if request.method == "POST":
            self.forms.check(request, visit.form_token)
        return visit

    # ------------------------------------------------------------ signing in

    async def begin(self, request: ApiRequest, profile: Profile) -> HTTPResponse:
        """To the app's own sign-in, or a page that says where to open this one."""
        platform, account = await self._platform(request, profile)
        if platform is None or account is None:
            return self._outside(request, profile, inside_app=platform is not None)
        await self.room.limits.check(SIGN_IN, f"{profile.code}:{request.remote_addr or request.ip}")
        state = self.room.services.outside.ids.token()
        response = redirect(self._sign_in_url(platform, account, profile, state))
        kept = base64.urlsafe_b64encode(page_of(request, profile).encode()).decode().rstrip("=")
        self._keep(response, SIGN_IN_COOKIE, f"{state}.{kept}", SIGN_IN_LIFE)
        return response

    async def back(self, request: ApiRequest, profile: Profile) -> HTTPResponse:
        """The app has sent its user back with a code."""
        state, target = self._begun(request, profile)
        given, code = str(request.args.get("state", "")), str(request.args.get("code", ""))
        _, account = await self._platform(request, profile)
        if account is None:
            return self._outside(request, profile, inside_app=False)
        is_ours = bool(state) and state.isascii() and given.isascii() and hmac.compare_digest(state, given)
        if not is_ours or not proper_code(code):
            return self._not_signed_in(request, profile, target)
        await self.room.limits.check(SIGN_IN, f"{profile.code}:{request.remote_addr or request.ip}")
        try:
            token, _ = await self.room.running.in_time(
                self.room.tap_seconds,
                self.room.auth.sign_in(
                    institution=profile.code,
                    app_id=account.app_id,
                    code=code,
                    language=look_of(request).language,
                ),
                late=PlatformUnavailable(),
            )
        except (NotSignedIn, PlatformUnavailable):
            return self._not_signed_in(request, profile, target)
        response = redirect(target, status=303)
        self._keep(response, SESSION_COOKIE, token, SESSION_LIFE)
        self._keep(response, SIGN_IN_COOKIE, "", timedelta(0))
        return response

    def _begun(self, request: ApiRequest, profile: Profile) -> tuple[str, str]:
        """The state that we sent, and the page to go on to."""
        state, _, kept = cookie_of(request, self._cookie(SIGN_IN_COOKIE)).partition(".")
        try:
            target = base64.urlsafe_b64decode(kept + "=" * (-len(kept) % 4)).decode()
        except (binascii.Error, ValueError):
            target = ""
        return state, target if is_page(target) else first_page(profile)

    def _not_signed_in(self, request: ApiRequest, profile: Profile, target: str) -> HTTPResponse:
        """A page to tap on, so that no sign-in that fails goes round and round.

        Apps send a code twice at times: what comes second finds the session that the first has brought.
        """
        if self._has_session(request, profile):
            return redirect(target, status=303)
        response = self.renderer.page(request, "not_signed_in.html", profile=profile, status=401, target=target)
        self._keep(response, SIGN_IN_COOKIE, "", timedelta(0))
        return response

    def _has_session(self, request: ApiRequest, profile: Profile) -> bool:
        try:
            session = self.room.auth.tokens.read(cookie_of(request, self._cookie(SESSION_COOKIE)))
        except NotSignedIn:
            return False
        return session.institution_id == profile.id

    def _outside(self, request: ApiRequest, profile: Profile, *, inside_app: bool) -> HTTPResponse:
        address = f"{self.room.services.outside.public_url}{page_of(request, profile).partition('?')[0]}"
        code = segno.make(address, error="m").svg_inline(scale=5, border=4, light="white", svgclass="qr")
        return self.renderer.page(
            request,
            "outside.html",
            profile=profile,
            status=403,
            inside_app=inside_app,
            code=Markup(code),  # noqa: S704
        )

    async def _platform(self, request: ApiRequest, profile: Profile) -> tuple[ChatPlatform | None, ChatAccount | None]:
        """The app that shows this page, and the institution's account there."""
        agent = str(request.headers.get("user-agent", ""))
        platforms = self.room.services.outside.platforms.values()
        platform = next((each for each in platforms if each.shows(agent)), None)
        if platform is None:
            return None, None
        return platform, await self.room.services.institutions.chat_account_on(profile.id, platform.name)

    def _sign_in_url(self, platform: ChatPlatform, account: ChatAccount, profile: Profile, state: str) -> str:
        back_to = f"{self.room.services.outside.public_url}{first_page(profile)}back"
        return platform.sign_in_url(account, back_to=back_to, state=state)

    @property
    def _is_secure(self) -> bool:
        return self.room.services.outside.public_url.startswith("https:")

    def _cookie(self, name: str) -> str:
        """Its name on this site; with the prefix no neighbouring host and no page without https can set it."""
        return f"{HOST_PREFIX}{name}" if self._is_secure else name

    def _keep(self, response: HTTPResponse, name: str, value: str, life: timedelta) -> None:
        keep_cookie(response, self._cookie(name), value, is_secure=self._is_secure, life=life)


def proper_code(code: str) -> bool:
    return 1 <= len(code) <= CODE_LENGTH_MAX and code.isascii() and code.isprintable()
