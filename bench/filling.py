from runtime.embedded_postgres import EmbeddedPostgres


def fill_database(postgres: EmbeddedPostgres, name: str, payments: int) -> None:
    pass
