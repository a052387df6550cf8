"""Runs Alembic's migrations in the transaction that `schema.migrate` opened."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # All or nothing, on SQLite too.
    transactional_ddl=True,
)
context.run_migrations()
