"""Members of staff: who they are, what they may do, and the key by which a program calls on their behalf."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tortoise.exceptions import IntegrityError

from core.actors import Actor, Role
from core.errors import InvalidRequest, NotFound, NotSignedIn
from core.models import Staff
from core.outside import Outside
from core.tenancy import across_institutions, scoped
from core.transactions import transaction, violated

KEY_PREFIX = "zs1_"
KEY_LENGTH_MAX = 128
CODE_LENGTH_MAX = 64
NAME_LENGTH_MAX = 64
_PLACE = "staff.token"


@dataclass(frozen=True, kw_only=True, slots=True)
class StaffView:
    """A member of staff as the operator sees him."""

    code: str
    name: str
    roles: tuple[Role, ...]
    is_active: bool
    has_key: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StaffService:
    """Used by the operator's commands; only `authenticate` is called on behalf of staff."""

    outside: Outside

    async def add(self, institution_id: UUID, code: str, name: str, roles: Iterable[Role]) -> str:
        """A new member of staff; returns his key, which is shown this once. Raises InvalidRequest."""
        _check(code, "code", CODE_LENGTH_MAX)
        _check(name, "name", NAME_LENGTH_MAX)
        key = self._new_key()
        try:
            async with transaction():
                await Staff.create(
                    id=self.outside.ids.uuid(),
                    institution_id=institution_id,
                    code=code,
                    name_enc=self.outside.keyring.encrypt(name, place="staff.name"),
                    roles=_words(roles),
                    token_lookup=self._lookup(key),
                    created_at=self.outside.clock.now(),
                )
        except IntegrityError as error:
            if violated(error) != "staff_once":
                raise
            raise InvalidRequest(field="code", problem="is somebody's already") from error
        return key

    async def members(self, institution_id: UUID) -> list[StaffView]:
        found = await scoped(institution_id).of(Staff).order_by("code")
        return [
            StaffView(
                code=staff.code,
                name=self.outside.keyring.decrypt(staff.name_enc, place="staff.name") if staff.name_enc else "",
                roles=tuple(sorted(_roles(staff))),
                is_active=staff.is_active,
                has_key=bool(staff.token_lookup),
                created_at=staff.created_at,
            )
            for staff in found
        ]

    async def new_key(self, institution_id: UUID, code: str) -> str:
        """Another key, shown this once; the old one ends. Who was deactivated works again. Raises NotFound."""
        key = self._new_key()
        await self._change(institution_id, code, token_lookup=self._lookup(key), is_active=True)
        return key

    async def set_roles(self, institution_id: UUID, code: str, roles: Iterable[Role]) -> None:
        """From his next request on. Raises NotFound."""
        await self._change(institution_id, code, roles=_words(roles))

    async def deactivate(self, institution_id: UUID, code: str) -> None:
        """His key ends at once; what he did stays on record under his code. Raises NotFound."""
        await self._change(institution_id, code, token_lookup="", is_active=False)

    async def authenticate(self, key: str) -> Actor:
        """Who calls with this key. Raises NotSignedIn.

        The key is found by its HMAC: nothing of how long that takes tells how near a guess was.
        """
        if not key.startswith(KEY_PREFIX) or len(key) > KEY_LENGTH_MAX or not key.isascii():
            raise NotSignedIn()
        with across_institutions("the key says who calls, and for which institution"):
            staff = await Staff.get_or_none(token_lookup=self._lookup(key))
        if staff is None or not staff.is_active:
            raise NotSignedIn()
        return Actor(
            staff_id=staff.id, institution_id=staff.institution_id, code=staff.code, roles=frozenset(_roles(staff))
        )

    async def _change(self, institution_id: UUID, code: str, **values: Any) -> None:
        if not await scoped(institution_id).of(Staff).filter(code=code).update(**values):
            raise NotFound()

    def _new_key(self) -> str:
        return KEY_PREFIX + self.outside.ids.token()

    def _lookup(self, key: str) -> str:
        return self.outside.keyring.lookup(key, place=_PLACE)


def _roles(staff: Staff) -> list[Role]:
    """Roles that this release does not know open nothing."""
    return [Role(word) for word in staff.roles if word in set(Role)]


def _words(roles: Iterable[Role]) -> list[str]:
    return sorted({role.value for role in roles})


def _check(text: str, field: str, length_max: int) -> None:
    if not 1 <= len(text) <= length_max or not text.isprintable():
        raise InvalidRequest(field=field, problem=f"1 to {length_max} printable characters are needed")
