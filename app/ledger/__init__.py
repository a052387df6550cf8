"""The ledger: what every call used, first in a journal on this machine's disk, from there in the database."""
