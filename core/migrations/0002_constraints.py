"""What the models cannot say: keys between tenants, proofs, states, ledgers that only grow, and grants."""

from tortoise import migrations
from tortoise.migrations import operations as ops

PARENTS = [
    "hospital_site",
    "merchant_account",
    "chat_account",
    "payment_method",
    "patient",
    "payer",
    "payment",
    "payment_line",
    "confirmation",
    "his_lock",
    "refund",
    "consent",
    "staff",
    "staff_case",
]

CHILDREN = {
    "hospital_site": [],
    "merchant_account": [],
    "chat_account": [],
    "payment_method": [("merchant_account_id", "merchant_account")],
    "patient": [],
    "his_patient": [("patient_id", "patient")],
    "patient_identifier": [("patient_id", "patient")],
    "payer": [("chat_account_id", "chat_account")],
    "binding": [("payer_id", "payer"), ("patient_id", "patient"), ("consent_id", "consent")],
    "consent": [("payer_id", "payer")],
    "paper_link": [("site_id", "hospital_site")],
    "paper_grant": [
        ("payer_id", "payer"),
        ("patient_id", "patient"),
        ("site_id", "hospital_site"),
        ("consent_id", "consent"),
    ],
    "guess": [],
    "phone_code": [("payer_id", "payer")],
    "payment": [
        ("merchant_account_id", "merchant_account"),
        ("payer_id", "payer"),
        ("patient_id", "patient"),
        ("site_id", "hospital_site"),
    ],
    "payment_line": [("payment_id", "payment"), ("confirmation_id", "confirmation")],
    "payment_event": [
        ("payment_id", "payment"),
        ("confirmation_id", "confirmation"),
        ("refund_id", "refund"),
    ],
    "raw_body": [],
    "confirmation": [("payment_id", "payment"), ("site_id", "hospital_site")],
    "his_lock": [("payment_id", "payment"), ("site_id", "hospital_site")],
    "refund": [
        ("payment_id", "payment"),
        ("replaces_id", "refund"),
        ("requested_by", "staff"),
        ("decided_by", "staff"),
    ],
    "refund_line": [("refund_id", "refund"), ("line_id", "payment_line"), ("payment_id", "payment")],
    "transfer": [("payment_id", "payment")],
    "seal": [],
    "inbound": [],
    "staff_case": [("payment_id", "payment"), ("closed_by", "staff")],
    "message": [("payer_id", "payer"), ("payment_id", "payment"), ("chat_account_id", "chat_account")],
    "idempotency_record": [("payment_id", "payment")],
    "staff": [],
    "audit_entry": [("staff_id", "staff")],
    "decision": [
        ("payment_id", "payment"),
        ("refund_id", "refund"),
        ("confirmation_id", "confirmation"),
        ("case_id", "staff_case"),
        ("proposed_by", "staff"),
        ("decided_by", "staff"),
    ],
}

PARTS = {"payment_line", "confirmation", "refund"}
"""What hangs on one of these hangs on the same payment."""

STATES = {
    "payment": (
        "created",
        "created>pending created>paid created>closed created>failed pending>paid pending>closed pending>failed"
        " closed>paid failed>paid",
    ),
    "payment_line": (
        "waiting",
        "waiting>void waiting>held waiting>surplus waiting>confirming void>waiting held>confirming held>returning"
        " confirming>confirmed confirming>rejected surplus>returning rejected>returning confirmed>reversing"
        " reversing>returning reversing>confirmed returning>returned returning>disputed returned>disputed"
        " disputed>returning disputed>confirmed",
    ),
    "confirmation": ("open", "open>confirmed open>rejected rejected>confirmed"),
    "his_lock": (
        "asking",
        "asking>held asking>refused asking>unknown asking>releasing"
        " asking>released asking>consumed unknown>held unknown>releasing unknown>released"
        " unknown>consumed held>releasing held>consumed releasing>released releasing>consumed releasing>held"
        " released>held refused>held",
    ),
    "refund": (
        "requested approved",
        "requested>declined requested>approved approved>reversing_at_his approved>sending reversing_at_his>sending"
        " reversing_at_his>declined sending>pending sending>refunded sending>stuck sending>dead pending>refunded"
        " pending>stuck pending>dead stuck>sending stuck>refunded stuck>dead",
    ),
    "decision": ("proposed", "proposed>approved proposed>declined"),
    "message": ("queued", "queued>sent queued>refused queued>unknown queued>skipped"),
}

DUE = ["hospital_site", "payment", "payment_line", "confirmation", "his_lock", "refund", "inbound", "message"]


def tenant_keys() -> list[str]:
    """A child belongs to the same institution as its parent, and to the same payment, by foreign key."""
    statements = [
        f"ALTER TABLE {table} ADD CONSTRAINT {table}_of_institution UNIQUE (institution_id, id)" for table in PARENTS
    ] + [
        f"ALTER TABLE {part} ADD CONSTRAINT {part}_of_one_payment UNIQUE (institution_id, payment_id, id)"
        for part in sorted(PARTS)
    ]
    for table, parents in CHILDREN.items():
        statements.append(
            f"ALTER TABLE {table} ADD CONSTRAINT {table}_institution"
            " FOREIGN KEY (institution_id) REFERENCES institution (id)"
        )
        for column, parent in parents:
            shared = "institution_id, payment_id" if parent in PARTS else "institution_id"
            statements.append(
                f"ALTER TABLE {table} ADD CONSTRAINT {table}_{column.removesuffix('_id')}"
                f" FOREIGN KEY ({shared}, {column}) REFERENCES {parent} ({shared}, id)"
            )
    return statements


def states() -> list[str]:
    """A row is born in a first state and moves only along the table of core/states.py."""
    statements = [
        """
        CREATE FUNCTION check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                IF position(' ' || NEW.status || ' ' IN ' ' || TG_ARGV[0] || ' ') = 0 THEN
                    RAISE EXCEPTION '% cannot begin as %', TG_TABLE_NAME, NEW.status
                        USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_states';
                END IF;
            ELSIF NEW.status <> OLD.status
                AND position(' ' || OLD.status || '>' || NEW.status || ' ' IN ' ' || TG_ARGV[1] || ' ') = 0 THEN
                RAISE EXCEPTION '% cannot go from % to %', TG_TABLE_NAME, OLD.status, NEW.status
                    USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_states';
            END IF;
            RETURN NEW;
        END $$
        """
    ]
    for table, (first, steps) in STATES.items():
        statements.append(
            f"CREATE TRIGGER {table}_states BEFORE INSERT OR UPDATE OF status ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION check_transition('{first}', '{steps}')"
        )
    return statements


def only_growing() -> list[str]:
    """Evidence and ledger rows are added, never changed or removed, not even by the owner."""
    statements = [
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% only grows: % refused', TG_TABLE_NAME, TG_OP
                USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_only_grows';
        END $$
        """
    ]
    for table in ("payment_event", "transfer", "seal", "audit_entry"):
        statements += [
            f"CREATE TRIGGER {table}_only_grows BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()",
            f"CREATE TRIGGER {table}_never_emptied BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
        ]
    return statements


PROOFS = [
    "ALTER TABLE payment_event ADD CONSTRAINT payment_event_proof_kind CHECK ((proves IS NULL) = (proof_kind IS NULL)"
    " AND (proof_kind IS NULL OR proof_kind IN ('verified_notice', 'authenticated_query', 'authenticated_close',"
    " 'explicit_refusal', 'never_sent', 'absent_after_deadline', 'staff_attested', 'nothing_to_collect')))",
    "ALTER TABLE payment_event ADD CONSTRAINT payment_event_proves CHECK (proves IS NULL"
    " OR (refund_id IS NULL AND confirmation_id IS NULL AND proves IN ('paid', 'closed', 'failed'))"
    " OR (confirmation_id IS NOT NULL AND proves IN ('confirmed', 'rejected'))"
    " OR (refund_id IS NOT NULL AND proves IN ('refunded', 'dead', 'reversed', 'kept')))",
    "ALTER TABLE payment_event ADD CONSTRAINT payment_event_once UNIQUE (payment_id, digest)",
    "ALTER TABLE payment_event ADD CONSTRAINT payment_event_of_payment UNIQUE (payment_id, proves, id)",
    "ALTER TABLE payment_event ADD CONSTRAINT payment_event_of_confirmation UNIQUE (confirmation_id, proves, id)",
    "ALTER TABLE payment_event ADD CONSTRAINT payment_event_of_refund UNIQUE (refund_id, proves, id)",
    "ALTER TABLE payment ADD CONSTRAINT payment_end_needs_proof CHECK (status IN ('created', 'pending') OR proof_id IS NOT NULL)",
    "ALTER TABLE payment ADD CONSTRAINT payment_proof FOREIGN KEY (id, status, proof_id)"
    " REFERENCES payment_event (payment_id, proves, id)",
    "ALTER TABLE confirmation ADD CONSTRAINT confirmation_end_needs_proof CHECK (status = 'open' OR proof_id IS NOT NULL)",
    "ALTER TABLE confirmation ADD CONSTRAINT confirmation_proof FOREIGN KEY (id, status, proof_id)"
    " REFERENCES payment_event (confirmation_id, proves, id)",
    "ALTER TABLE refund ADD CONSTRAINT refund_end_needs_proof CHECK (status NOT IN ('refunded', 'dead') OR proof_id IS NOT NULL)",
    "ALTER TABLE refund ADD COLUMN his_proved VARCHAR(20) GENERATED ALWAYS AS"
    " (CASE WHEN his_proof_id IS NULL THEN NULL WHEN status = 'declined' THEN 'kept' ELSE 'reversed' END) STORED",
    "ALTER TABLE refund ADD CONSTRAINT refund_his_proof FOREIGN KEY (id, his_proved, his_proof_id)"
    " REFERENCES payment_event (refund_id, proves, id)",
    # What the HIS has booked goes back only when it has proven that it took the booking back, or its red receipt says so.
    "ALTER TABLE refund ADD CONSTRAINT refund_his_first CHECK (origin = 'automatic' OR replaces_id IS NOT NULL"
    " OR status IN ('requested', 'declined', 'approved', 'reversing_at_his') OR his_proof_id IS NOT NULL)",
    "ALTER TABLE refund ADD CONSTRAINT refund_origin CHECK (origin IN ('automatic', 'staff', 'hospital'))",
    "ALTER TABLE refund ADD CONSTRAINT refund_two_people CHECK (status = 'declined' OR decided_by IS NULL OR requested_by IS NULL"
    " OR decided_by <> requested_by)",
    "CREATE UNIQUE INDEX refund_red_receipt_once ON refund (institution_id, payment_id, red_receipt_no)"
    " WHERE red_receipt_no <> '' AND replaces_id IS NULL",
    "CREATE UNIQUE INDEX refund_requested_once ON refund (institution_id, requested_by, request_key)"
    " WHERE request_key <> ''",
    "ALTER TABLE decision ADD CONSTRAINT decision_two_people CHECK (status = 'declined' OR decided_by <> proposed_by)",
    "ALTER TABLE decision ADD CONSTRAINT decision_decided CHECK ((status = 'proposed') = (decided_by IS NULL))",
    "CREATE UNIQUE INDEX decision_open_once ON decision (institution_id, kind, payment_id,"
    " COALESCE(refund_id, confirmation_id, payment_id)) WHERE status = 'proposed'",
    "ALTER TABLE refund ADD CONSTRAINT refund_proof FOREIGN KEY (id, status, proof_id)"
    " REFERENCES payment_event (refund_id, proves, id)",
    "ALTER TABLE payment_line ADD COLUMN proved_status VARCHAR(20)"
    " GENERATED ALWAYS AS (CASE WHEN status IN ('confirmed', 'rejected') THEN status END) STORED",
    "ALTER TABLE payment_line ADD CONSTRAINT payment_line_end_needs_proof CHECK (status NOT IN ('confirmed', 'rejected')"
    " OR (proof_id IS NOT NULL AND confirmation_id IS NOT NULL))",
    "ALTER TABLE payment_line ADD CONSTRAINT payment_line_proof FOREIGN KEY (confirmation_id, proved_status, proof_id)"
    " REFERENCES payment_event (confirmation_id, proves, id)",
]

WRITTEN_ONCE = {
    "payment": ["order_no", "asked_fen"],
    "payment_line": ["his_bill_id", "confirm_no", "amount_fen"],
    "confirmation": ["confirm_no"],
    "refund": ["refund_no", "amount_fen", "origin", "replaces_id"],
    "refund_line": ["amount_fen"],
}
"""Numbers under which counterparties know us, and amounts that they were told."""

FIXED = [
    """
    CREATE FUNCTION refuse_new_value() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        word text;
    BEGIN
        FOREACH word IN ARRAY TG_ARGV LOOP
            IF to_jsonb(NEW) -> word IS DISTINCT FROM to_jsonb(OLD) -> word THEN
                RAISE EXCEPTION '% of % is written once', word, TG_TABLE_NAME
                    USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_fixed';
            END IF;
        END LOOP;
        RETURN NEW;
    END $$
    """,
    *(
        f"CREATE TRIGGER {table}_fixed BEFORE UPDATE OF {', '.join(columns)} ON {table}"
        f" FOR EACH ROW EXECUTE FUNCTION refuse_new_value({', '.join(columns)})"
        for table, columns in WRITTEN_ONCE.items()
    ),
    """
    CREATE FUNCTION refuse_undecided_refund() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'what waits for a person is approved by one'
            USING ERRCODE = '23514', CONSTRAINT = 'refund_decided';
    END $$
    """,
    "CREATE TRIGGER refund_decided BEFORE UPDATE OF status ON refund FOR EACH ROW"
    " WHEN (OLD.status = 'requested' AND NEW.status = 'approved' AND NEW.decided_by IS NULL)"
    " EXECUTE FUNCTION refuse_undecided_refund()",
    # A successor needs no proof of the HIS: the one that it replaces has had it, or was no such refund.
    """
    CREATE FUNCTION check_replaced_refund() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM refund r WHERE r.institution_id = NEW.institution_id AND r.id = NEW.replaces_id
            AND r.status = 'dead' AND r.origin = NEW.origin AND r.amount_fen >= NEW.amount_fen) THEN
            RAISE EXCEPTION 'a refund replaces a dead one of its kind, and gives no more'
                USING ERRCODE = '23514', CONSTRAINT = 'refund_replaces_dead';
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER refund_replaces_dead BEFORE INSERT ON refund FOR EACH ROW WHEN (NEW.replaces_id IS NOT NULL)"
    " EXECUTE FUNCTION check_replaced_refund()",
    """
    CREATE FUNCTION refuse_new_number() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (NEW.channel, NEW.merchant_no) IS DISTINCT FROM (OLD.channel, OLD.merchant_no) THEN
            RAISE EXCEPTION 'a merchant number is never changed, a new account is made: open orders stand at the old one'
                USING ERRCODE = '23514', CONSTRAINT = 'merchant_account_number_fixed';
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER merchant_account_number_fixed BEFORE UPDATE ON merchant_account"
    " FOR EACH ROW EXECUTE FUNCTION refuse_new_number()",
    "ALTER TABLE hospital_site ADD CONSTRAINT hospital_site_limits"
    " CHECK (deadline_seconds BETWEEN 1 AND 60 AND calls_max BETWEEN 1 AND 100)",
]

MONEY = [
    "ALTER TABLE payment ADD CONSTRAINT payment_amounts CHECK (asked_fen >= 0 AND paid_fen >= 0 AND refunded_fen >= 0)",
    "ALTER TABLE payment ADD CONSTRAINT payment_refunds_within_paid"
    " CHECK (refund_reserved_fen >= 0 AND refund_reserved_fen <= paid_fen)",
    "ALTER TABLE payment ADD CONSTRAINT payment_paid_or_nothing CHECK (status = 'paid' OR paid_fen = 0)",
    "ALTER TABLE payment ADD CONSTRAINT payment_refunded_within_reserved CHECK (refunded_fen <= refund_reserved_fen)",
    "ALTER TABLE payment ADD CONSTRAINT payment_external_refunds CHECK (external_refunded_fen >= 0)",
    "ALTER TABLE payment_line ADD CONSTRAINT payment_line_amount CHECK (amount_fen >= 0)",
    "ALTER TABLE payment_line ADD CONSTRAINT payment_line_back_within_amount"
    " CHECK (refunded_fen >= 0 AND paid_out_fen >= 0 AND refunded_fen + paid_out_fen <= amount_fen)",
    "ALTER TABLE refund ADD CONSTRAINT refund_amount CHECK (amount_fen > 0)",
    # What others have given back whole is not sent any more: it has arrived.
    "ALTER TABLE refund ADD CONSTRAINT refund_external CHECK (external_fen >= 0 AND external_fen <= amount_fen"
    " AND (external_fen < amount_fen OR status = 'refunded'))",
    "ALTER TABLE refund ADD CONSTRAINT refund_replaced_once UNIQUE (replaces_id)",
    "ALTER TABLE refund_line ADD CONSTRAINT refund_line_amount CHECK (amount_fen >= 0)",
    "ALTER TABLE refund_line ADD CONSTRAINT refund_line_once UNIQUE (refund_id, line_id)",
    "ALTER TABLE transfer ADD CONSTRAINT transfer_moves_money CHECK (amount_fen > 0 AND debit <> credit)",
    "ALTER TABLE transfer ADD CONSTRAINT transfer_once UNIQUE (cause, kind)",
    "ALTER TABLE payment_line ADD CONSTRAINT payment_line_position UNIQUE (payment_id, position)",
    "CREATE UNIQUE INDEX payment_line_bill_once ON payment_line (institution_id, branch, his_bill_id)"
    " WHERE status IN ('confirming', 'confirmed', 'reversing')",
    "CREATE UNIQUE INDEX payment_line_claim ON payment_line (institution_id, branch, his_bill_id) WHERE claims_bill",
    "CREATE INDEX payment_line_waits ON payment_line (institution_id, branch, his_bill_id) WHERE status = 'waiting'",
]

LEDGER = [
    # A payment's transfers are 1, 2, 3 … without a gap, and money is taken before it moves.
    "ALTER TABLE transfer ADD COLUMN previous_seq INT GENERATED ALWAYS AS (CASE WHEN seq > 1 THEN seq - 1 END) STORED",
    "ALTER TABLE transfer ADD CONSTRAINT transfer_in_turn UNIQUE (institution_id, payment_id, seq)",
    "ALTER TABLE transfer ADD CONSTRAINT transfer_follows FOREIGN KEY (institution_id, payment_id, previous_seq)"
    " REFERENCES transfer (institution_id, payment_id, seq)",
    "ALTER TABLE transfer ADD CONSTRAINT transfer_begins CHECK (seq >= 1 AND (seq = 1) = (kind = 'paid'))",
    # In what order transfers were written, whatever the clocks say; a transaction that is undone leaves a gap.
    "CREATE SEQUENCE transfer_place",
    "ALTER TABLE transfer ADD COLUMN place BIGINT NOT NULL DEFAULT nextval('transfer_place')",
    "ALTER SEQUENCE transfer_place OWNED BY transfer.place",
    # An institution's seals are 1, 2, 3 …; each begins where the one before it ends, and knows its mac.
    "ALTER TABLE seal ADD COLUMN previous_number INT"
    " GENERATED ALWAYS AS (CASE WHEN number > 1 THEN number - 1 END) STORED",
    "ALTER TABLE seal ADD CONSTRAINT seal_in_turn UNIQUE (institution_id, number)",
    "ALTER TABLE seal ADD CONSTRAINT seal_joins UNIQUE (institution_id, number, last_place, mac)",
    "ALTER TABLE seal ADD CONSTRAINT seal_follows"
    " FOREIGN KEY (institution_id, previous_number, after_place, previous_mac)"
    " REFERENCES seal (institution_id, number, last_place, mac)",
    "ALTER TABLE seal ADD CONSTRAINT seal_window CHECK (number >= 1 AND after_place < last_place AND transfers > 0"
    " AND (number = 1) = (after_place = 0))",
]

ONCE = [
    "ALTER TABLE his_patient ADD CONSTRAINT his_patient_once UNIQUE (institution_id, branch, his_patient_id)",
    "ALTER TABLE patient_identifier ADD CONSTRAINT patient_identifier_once UNIQUE (institution_id, type, lookup, patient_id)",
    "ALTER TABLE payer ADD CONSTRAINT payer_once UNIQUE (chat_account_id, open_id_lookup)",
    "ALTER TABLE payment_method ADD CONSTRAINT payment_method_once UNIQUE (institution_id, app_id, code)",
    "ALTER TABLE chat_account ADD CONSTRAINT chat_account_once UNIQUE (institution_id, platform, app_id)",
    "ALTER TABLE merchant_account ADD CONSTRAINT merchant_account_once UNIQUE (institution_id, channel, merchant_no)",
    "ALTER TABLE hospital_site ADD CONSTRAINT hospital_site_once UNIQUE (institution_id, branch)",
    "CREATE UNIQUE INDEX binding_once ON binding (payer_id, patient_id) WHERE removed_at IS NULL",
    "ALTER TABLE inbound ADD CONSTRAINT inbound_once UNIQUE (source, account_id, digest)",
    "ALTER TABLE unverified_inbound ADD CONSTRAINT unverified_inbound_slot UNIQUE (source, account_id, slot)",
    "ALTER TABLE raw_body ADD CONSTRAINT raw_body_once UNIQUE (institution_id, digest)",
    "CREATE UNIQUE INDEX staff_case_open_once ON staff_case (institution_id, kind, subject) WHERE status = 'open'",
    "ALTER TABLE message ADD CONSTRAINT message_once UNIQUE (institution_id, dedup_key)",
    "ALTER TABLE idempotency_record ADD CONSTRAINT idempotency_record_once UNIQUE (institution_id, actor, route, key)",
    "ALTER TABLE paper_link ADD CONSTRAINT paper_link_once UNIQUE (lookup)",
    "ALTER TABLE staff ADD CONSTRAINT staff_once UNIQUE (institution_id, code)",
    "CREATE UNIQUE INDEX staff_token_once ON staff (token_lookup) WHERE token_lookup <> ''",
    "ALTER TABLE guess ADD CONSTRAINT guess_once UNIQUE (institution_id, subject, actor)",
    "CREATE UNIQUE INDEX consent_once ON consent (payer_id, kind, version) WHERE withdrawn_at IS NULL",
]

INDEXES = [
    *(f"CREATE INDEX {table}_due ON {table} (due_at) WHERE due_at IS NOT NULL" for table in DUE),
    "CREATE INDEX payment_of_payer ON payment (payer_id, created_at)",
    "CREATE INDEX payment_of_patient ON payment (patient_id, created_at)",
    "CREATE INDEX confirmation_of_payment ON confirmation (payment_id)",
    "CREATE INDEX his_lock_of_payment ON his_lock (payment_id)",
    "CREATE INDEX refund_of_payment ON refund (payment_id)",
    "CREATE INDEX refund_line_of_line ON refund_line (line_id)",
    "CREATE INDEX transfer_in_place ON transfer (institution_id, place)",
    "CREATE INDEX payer_union ON payer (institution_id, union_lookup) WHERE union_lookup <> ''",
    "CREATE INDEX his_patient_of_patient ON his_patient (patient_id)",
    "CREATE INDEX paper_grant_of_payer ON paper_grant (payer_id, ends_at)",
    "CREATE INDEX phone_code_of_payer ON phone_code (payer_id, sent_at)",
    "CREATE INDEX phone_code_of_phone ON phone_code (phone_lookup, sent_at)",
    "CREATE INDEX phone_code_of_institution ON phone_code (institution_id, sent_at)",
    "CREATE INDEX message_on_platform ON message (chat_account_id, platform_message_id) WHERE platform_message_id <> ''",
    "CREATE INDEX message_of_payment ON message (payment_id) WHERE payment_id IS NOT NULL",
    "CREATE INDEX staff_case_of_subject ON staff_case (institution_id, subject)",
    "CREATE INDEX payment_line_of_bill ON payment_line (institution_id, his_bill_id)",
    "CREATE INDEX payment_line_of_receipt ON payment_line (institution_id, receipt_no) WHERE receipt_no <> ''",
    "CREATE INDEX payment_of_trade ON payment (institution_id, channel_trade_no) WHERE channel_trade_no <> ''",
    "CREATE INDEX audit_entry_in_time ON audit_entry (institution_id, at, id)",
    "CREATE INDEX audit_entry_of_subject ON audit_entry (institution_id, subject, at, id)",
    "CREATE INDEX decision_of_payment ON decision (payment_id)",
    "CREATE INDEX staff_case_open ON staff_case (institution_id, opened_at, id) WHERE status = 'open'",
    "CREATE INDEX staff_case_open_of_kind ON staff_case (institution_id, kind, opened_at, id) WHERE status = 'open'",
    "CREATE INDEX staff_case_of_payment ON staff_case (payment_id) WHERE payment_id IS NOT NULL",
    "CREATE INDEX idempotency_record_age ON idempotency_record (created_at)",
]

GRANTS = [
    "GRANT USAGE ON SCHEMA public TO zhenfu_app",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO zhenfu_app",
    "GRANT USAGE ON SEQUENCE transfer_place TO zhenfu_app",
    "REVOKE UPDATE, DELETE, TRUNCATE ON payment_event, transfer, seal, audit_entry FROM zhenfu_app",
    "REVOKE INSERT, UPDATE, DELETE ON deployment, tortoise_migrations FROM zhenfu_app",
    "REVOKE DELETE ON payment, payment_line, confirmation, his_lock, refund, refund_line, inbound, staff_case,"
    " staff, decision FROM zhenfu_app",
]


class Migration(migrations.Migration):
    dependencies = [("core", "0001_tables")]

    operations = [
        ops.RunSQL(
            [*tenant_keys(), *PROOFS, *FIXED, *MONEY, *LEDGER, *ONCE, *INDEXES, *states(), *only_growing(), *GRANTS]
        ),
    ]
