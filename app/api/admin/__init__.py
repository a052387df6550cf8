"""`/admin/v1`: whatever an operator can see and change, with a key of the scope `admin` or `admin:read`.

It is imported at its first request: a worker that never gets one has neither its memory nor its start to pay.
"""
