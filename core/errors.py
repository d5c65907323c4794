"""Every error that we raise on purpose.

ZhenfuError
├── RequestError                our caller must change something; `code` is stable, the sentence comes from texts.py
│   ├── InvalidRequest          the request itself is malformed
│   ├── NotSignedIn             no valid session
│   ├── NotFound                nothing there that this caller may see
│   ├── PatientNotBound         another family's bill or patient
│   ├── ConsentNeeded           the privacy notice has not been agreed to
│   ├── BindingRefused          the HIS does not know this person or phone, or too many are bound
│   ├── FactorWrong             the digits are not those of this paper's patient
│   ├── FactorLocked            too many guesses: wait, or go to the window
│   ├── PhoneCodeRefused        the code is wrong or lapsed, or too many were asked for
│   ├── BillNotPayable          lapsed, paid, cancelled, insured-only …; `reason` says which
│   ├── AmountChanged           the HIS's amount is not the one that was shown
│   ├── PaymentOpenElsewhere    another attempt holds the bill and could not be closed; going on is possible
│   ├── AlreadyPaid             the bill has been paid; nothing more to do
│   ├── MethodNotAvailable      this way of paying is switched off here
│   ├── IdempotencyConflict     same key, other request
│   ├── StillWorking            same key, first request still under way
│   ├── TooManyRequests         a limit was reached; try later
│   ├── HospitalUnavailable     the HIS could not be asked now
│   ├── ChannelUnavailable      the channel could not be asked now
│   ├── PlatformUnavailable     the chat platform could not be asked now
│   └── ServiceUnavailable      our own database was lost in the middle: done or not, asking again is safe
├── StaffError                  a member of staff must do something else; the sentence comes from staff_texts.py
│   ├── NotAllowed              this member of staff may not do that
│   ├── NeedsAnother            it takes two: somebody else must decide
│   ├── RefundNotPossible       the HIS, the amount or the state stands against it; `reason` says which
│   ├── ActionNotPossible       not with this case, or not as it stands now; `reason` says why
│   └── AlreadyDecided          somebody was faster
├── CounterpartyError           what a counterparty did to a call; answers "may money have moved?"
│   ├── NotReached              no: the request never left
│   ├── Refused                 no, and why; `final` when code and status are in the adapter's closed list
│   └── OutcomeUnknown          maybe: ask, never resend blindly
└── ConfigurationError          the operator must change something before the program can run
"""

from __future__ import annotations

from typing import ClassVar

from core.money import Fen


class ZhenfuError(Exception):
    """Something went wrong in a way we know."""


class RequestError(ZhenfuError):
    """The caller must change something.

    `code` is part of the API and never changes its meaning; `values` fill the sentence in texts.py.
    """

    code: ClassVar[str] = "request_error"

    def __init__(self, **values: str | int) -> None:
        self.values = values
        super().__init__(self.code, values)


class InvalidRequest(RequestError):
    """The request is malformed. Values: field, problem."""

    code = "invalid_request"


class NotSignedIn(RequestError):
    """There is no valid session."""

    code = "not_signed_in"


class NotFound(RequestError):
    """Nothing there that this caller may see."""

    code = "not_found"


class PatientNotBound(RequestError):
    """This payer has not bound this patient."""

    code = "patient_not_bound"


class ConsentNeeded(RequestError):
    """Sensitive data comes only after the privacy notice has been agreed to."""

    code = "consent_needed"


class BindingRefused(RequestError):
    """Binding refused. Values: reason (not_found | phone_differs | phone_code | too_many | already_bound)."""

    code = "binding_refused"


class FactorWrong(RequestError):
    """The digits are not those of this paper's patient. Values: left (tries that remain)."""

    code = "factor_wrong"


class FactorLocked(RequestError):
    """Too many guesses. Values: minutes."""

    code = "factor_locked"


class PhoneCodeRefused(RequestError):
    """No code is sent, or this one does not count. Values: reason (wrong | lapsed | too_soon | too_many | no_sms)."""

    code = "phone_code_refused"


class BillNotPayable(RequestError):
    """The HIS does not accept payment for this bill. Values: reason, his_text."""

    code = "bill_not_payable"


class AmountChanged(RequestError):
    """The amount at the HIS is no longer the one shown. Values: shown_fen, amount_fen."""

    code = "amount_changed"

    def __init__(self, *, shown_fen: Fen, amount_fen: Fen) -> None:
        super().__init__(shown_fen=shown_fen, amount_fen=amount_fen)


class PaymentOpenElsewhere(RequestError):
    """Another attempt for this bill may still be paid. Values: until (HH:MM, Shanghai)."""

    code = "payment_open_elsewhere"


class AlreadyPaid(RequestError):
    """This bill has been paid through us. Values: order_no."""

    code = "already_paid"


class MethodNotAvailable(RequestError):
    """This way of paying is not offered here."""

    code = "method_not_available"


class IdempotencyConflict(RequestError):
    """The same Idempotency-Key came with a different request."""

    code = "idempotency_conflict"


class StillWorking(RequestError):
    """The first request with this Idempotency-Key is still being worked on."""

    code = "still_working"


class TooManyRequests(RequestError):
    """A limit was reached. Values: retry_after_seconds."""

    code = "too_many_requests"


class HospitalUnavailable(RequestError):
    """The HIS is down, silent, in maintenance, or too busy."""

    code = "hospital_unavailable"


class ChannelUnavailable(RequestError):
    """The payment channel could not be asked; nobody was charged."""

    code = "channel_unavailable"


class PlatformUnavailable(RequestError):
    """The chat platform could not be asked for an identity or a phone."""

    code = "platform_unavailable"


class ServiceUnavailable(RequestError):
    """The database is away, or went away in the middle; a commit whose answer was lost may have been made.

    Whatever must follow is a row, and whoever repeats a request with its key finds what it has done.
    """

    code = "service_unavailable"


class StaffError(ZhenfuError):
    """A member of staff must do something else. `code` is part of the staff API; `values` fill its sentence."""

    code: ClassVar[str] = "staff_error"

    def __init__(self, **values: str | int) -> None:
        self.values = values
        super().__init__(self.code, values)


class NotAllowed(StaffError):
    """This member of staff may not do that. Values: role, the one it takes."""

    code = "not_allowed"


class NeedsAnother(StaffError):
    """Who has proposed or asked for something does not decide it."""

    code = "needs_another"


class RefundNotPossible(StaffError):
    """Values: reason (not_confirmed, too_much, window_only, his_refuses, too_late, under_way), his_text."""

    code = "refund_not_possible"


class ActionNotPossible(StaffError):
    """Values: reason (not_for_this_case, unsettled, closed, nothing_waits, proposed_already, too_early …)."""

    code = "action_not_possible"


class AlreadyDecided(StaffError):
    """Somebody was faster, or it has settled by itself. Values: status."""

    code = "already_decided"


class CounterpartyError(ZhenfuError):
    """A call to a counterparty did not end with an answer we can use."""


class NotReached(CounterpartyError):
    """The request never left: nothing can have happened."""


class Refused(CounterpartyError):
    """The counterparty said no.

    `final` is true only when status and code are in the adapter's closed list and came in the
    counterparty's own error format: then it is proof. Otherwise it only schedules the next question.
    `too_often`: it asks for a pause; the same request may be taken in a moment, or may have been taken all the same.
    """

    def __init__(
        self, code: str, message: str = "", *, final: bool = False, too_often: bool = False, raw: bytes = b""
    ) -> None:
        self.code = code
        self.message = message
        self.final = final
        self.too_often = too_often
        self.raw = raw
        super().__init__(code, message)


class OutcomeUnknown(CounterpartyError):
    """The request may have had its effect; only a question can tell."""


class ConfigurationError(ZhenfuError):
    """A setting is missing or wrong; the message says which and what to do."""
