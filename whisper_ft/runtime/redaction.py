"""Redaction of credentials in addresses, before a text is shown, logged or written to a file."""

import re

USER = re.compile(r"(?P<protocol>\b[a-z][a-z0-9+.-]*://)[^/@\s'\"]*@", re.IGNORECASE)
"""User and password before a host: https://me:secret@host/file."""
PARAMETER = re.compile(
    r"(?P<name>[?&;][\w.-]*(?:token|key|secret|passw|signature|sig|credential|auth)[\w.-]*=)[^&;#\s'\"]+", re.IGNORECASE
)
"""Parameter of a query that grants access, as in addresses that S3, Azure and others sign."""
HIDDEN = "***"


def redacted(text: str) -> str:
    """Return a text in which the credentials of all addresses are hidden."""
    return redacted_query(USER.sub(rf"\g<protocol>{HIDDEN}@", text)) if "://" in text else text


def redacted_query(name: str) -> str:
    """Return the name of a remote file in which the credentials of its query are hidden."""
    return PARAMETER.sub(rf"\g<name>{HIDDEN}", name)
