"""What `zhenfu staff` does once its arguments are read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from core.actors import Role
from core.errors import ConfigurationError, InvalidRequest, NotFound
from core.staff import StaffService
from runtime.settings import Settings

Work = Callable[[StaffService, UUID], Awaitable[str]]


def add(settings: Settings, *, institution: str, code: str, name: str, roles: Sequence[str]) -> str:
    """A new member of staff; the text has his key, which is never shown again."""
    wanted = read_roles(roles)

    async def work(staff: StaffService, institution_id: UUID) -> str:
        return _told(code, await staff.add(institution_id, code, name, wanted))

    return _run(settings, institution, work)


def listed(settings: Settings, *, institution: str) -> str:
    """A line for each member of staff, with the name: for the operator's eyes."""

    async def work(staff: StaffService, institution_id: UUID) -> str:
        lines = [
            f"{'on ' if view.is_active else 'off'}  {view.code:<16} {' '.join(view.roles):<60} {view.name}"
            for view in await staff.members(institution_id)
        ]
        return "\n".join(lines) or "nobody yet: zhenfu staff add"

    return _run(settings, institution, work)


def new_key(settings: Settings, *, institution: str, code: str) -> str:
    """Another key for somebody who has lost his, or who comes back."""

    async def work(staff: StaffService, institution_id: UUID) -> str:
        return _told(code, await staff.new_key(institution_id, code))

    return _run(settings, institution, work)


def set_roles(settings: Settings, *, institution: str, code: str, roles: Sequence[str]) -> str:
    wanted = read_roles(roles)

    async def work(staff: StaffService, institution_id: UUID) -> str:
        await staff.set_roles(institution_id, code, wanted)
        return f"{code} may now: {' '.join(sorted(wanted))}"

    return _run(settings, institution, work)


def off(settings: Settings, *, institution: str, code: str) -> str:
    async def work(staff: StaffService, institution_id: UUID) -> str:
        await staff.deactivate(institution_id, code)
        return f"{code} can do nothing any more; what was done stays on record"

    return _run(settings, institution, work)


def read_roles(words: Sequence[str]) -> frozenset[Role]:
    """Raises ConfigurationError that names the roles there are."""
    known = {role.value for role in Role}
    if not words or set(words) - known:
        raise ConfigurationError(f"--role is one of {', '.join(sorted(known))}; repeat it for several")
    return frozenset(Role(word) for word in words)


def _told(code: str, key: str) -> str:
    return f"the key of {code}, shown this once (Authorization: Bearer …):\n{key}"


def _run(settings: Settings, institution: str, work: Work) -> str:
    from runtime.commands import check_database
    from runtime.database import database
    from runtime.programs import wire

    async def run() -> str:
        await check_database(settings)
        wired = wire(settings, "staff")
        try:
            async with database(settings.database_url, pool_max=1):
                try:
                    profile = await wired.services.institutions.profile_by_code(institution)
                except NotFound:
                    raise ConfigurationError(f"there is no institution {institution!r}") from None
                try:
                    return await work(wired.services.staff, profile.id)
                except NotFound:
                    raise ConfigurationError(f"nobody has that code at {institution!r}") from None
                except InvalidRequest as error:
                    raise ConfigurationError(f"{error.values['field']}: {error.values['problem']}") from error
        finally:
            await wired.finish()

    return asyncio.run(run())
