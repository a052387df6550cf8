"""`/console`: pages for people who look after the gateway, and for the holders of keys.

It is imported at its first request, and so is Jinja2: a worker that never shows a page has neither to pay.
"""
