"""What of a URL may be written down or shown: never its user, password, keys, tokens or signatures."""

import re
from typing import Any

# up to the last @ before the path; the second form is of a password in which / ? or # stand unescaped
USER = re.compile(r"([a-z][a-z0-9+.-]*://)([^/?#\s]*|[^/@\s:]+:(?!\d+[/?#])[^@\s]*)@", re.IGNORECASE)
CONTAINERS = ("abfs://", "abfss://", "wasb://", "wasbs://")  # Azure's container@account is no user
QUERY = re.compile(r"(://[^\s?#\"<>]*)([?#])([^\s\"<>]*?)(?=[:,.;)']*(?:[\s\"<>]|$))")
SECRET = re.compile(r"sig|tok|key|pass|pwd|secret|auth|cred|x-amz-|x-goog-", re.IGNORECASE)  # in a parameter's name


def without_credentials(text: str) -> str:
    """The text, with every URL in it without user and password, and without a query's keys, tokens and signatures."""
    return QUERY.sub(_public_query, USER.sub(_public_user, text))


def cleaned(value: Any) -> Any:
    """A JSON value with `without_credentials` of every text in it."""
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, dict):
        return {key: cleaned(one) for key, one in value.items()}
    return [cleaned(one) for one in value] if isinstance(value, list | tuple) else value


def _public_user(match: re.Match[str]) -> str:
    scheme, user = match[1], match[2]
    return match[0] if scheme.lower() in CONTAINERS and ":" not in user else scheme


def _public_query(match: re.Match[str]) -> str:
    parts = re.split("[&;?#]", match[3])
    kept = [part for part in parts if not SECRET.search(part.partition("=")[0])]
    return match[0] if len(kept) == len(parts) else match[1] + (match[2] + "&".join(kept) if kept else "")
