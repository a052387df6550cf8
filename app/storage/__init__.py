"""The database, and the only place that knows SQL. Imported only where a database is configured."""
