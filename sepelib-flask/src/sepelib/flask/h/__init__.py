"""Helpers for JSON APIs in any Flask application, under any server.

from sepelib.flask import h

h.errors.register(app)                      # every error in one form

@app.get("/jobs")
@h.json_api
def find():
    search = h.args.parse(Search)           # a dataclass; misspelt arguments are refused
    page = h.pagination()
    return jobs.find(search, page), page.headers(more=True)

args            arguments of the query           constraints   Range, Length, Pattern, Name
json_body       JSON bodies into dataclasses     convert       which types can be read
responses       JSON, attachments                streaming     JSON sent while it is made
conditional     ETags, If-Match                  paging        pages and their links
errors          problem+json                     decorators    json_api
"""

from sepelib.flask.h import args, errors
from sepelib.flask.h.conditional import check_precondition, etag, not_modified_if
from sepelib.flask.h.constraints import Length, Name, Pattern, Range
from sepelib.flask.h.decorators import json_api
from sepelib.flask.h.errors import ApiError
from sepelib.flask.h.json_body import body
from sepelib.flask.h.paging import PAGE_ARGUMENTS, Page, pagination
from sepelib.flask.h.responses import attachment, created, encode, json_response, no_content
from sepelib.flask.h.streaming import StreamBroken, stream_json

__all__ = [
    "PAGE_ARGUMENTS",
    "ApiError",
    "Length",
    "Name",
    "Page",
    "Pattern",
    "Range",
    "StreamBroken",
    "args",
    "attachment",
    "body",
    "check_precondition",
    "created",
    "encode",
    "errors",
    "etag",
    "json_api",
    "json_response",
    "no_content",
    "not_modified_if",
    "pagination",
    "stream_json",
]
